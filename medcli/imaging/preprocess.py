"""Scan → model input: the one preprocessing that train, classify, index and search share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medcli.config import PreprocessConfig, Window
from medcli.imaging.intensity import percentile_range, scale, value_range, window_range
from medcli.imaging.resize import resize
from medcli.records import Scan

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue where a grey model sees colour (ITU-R BT.601)."""

LEVELS = 255
"""Steps between 0 and 1 that a model can see."""

_CHUNK = 16  # slices in work at a time; keeps float copies of a volume small


class Preprocessor:
    """The preprocessing of one model; `config` is saved with it."""

    def __init__(self, config: PreprocessConfig) -> None:
        self.config = config
        self._mean = np.array(config.mean, dtype=np.float32).reshape(1, -1, 1, 1)
        self._std = np.array(config.std, dtype=np.float32).reshape(1, -1, 1, 1)

    def model_input(
        self,
        scan: Scan,
        *,
        slices: Sequence[int] | np.ndarray | None = None,
        window: Window | None = None,
    ) -> np.ndarray:
        """Scale, fit into the model's square and standardise.

        Parameters
        ----------
        scan :
            what was read
        slices :
            which slices, in this order; None for all
        window :
            (center, width) to see the slices through, each as a picture that was saved
            with this window; None for the model's own way

        Returns
        -------
        (S', C, size, size) float32. Percentiles are taken over the whole scan,
        whatever slices are asked for.
        """
        return self.standardise(self.unit_input(scan, slices=slices, window=window))

    def standardise(self, images: np.ndarray) -> np.ndarray:
        """(S, C, H, W) in 0–1 → by mean and spread of the training part, per channel."""
        return np.asarray((images - self._mean) / self._std)

    def unit_input(
        self,
        scan: Scan,
        *,
        slices: Sequence[int] | np.ndarray | None = None,
        window: Window | None = None,
    ) -> np.ndarray:
        """`model_input` before standardisation: (S', C, size, size) float32 in 0–1.

        Rounded to `LEVELS` steps, so that training, which keeps a byte a value, and
        prediction see the same numbers.
        """
        chosen = np.arange(len(scan.pixels)) if slices is None else np.asarray(slices, dtype=int)
        ends = value_range(scan, self.config)
        size, channels = self.config.size, self.config.channels
        result = np.empty((len(chosen), channels, size, size), dtype=np.float32)
        for start in range(0, len(chosen), _CHUNK):
            part = chosen[start : start + _CHUNK]
            pixels = scan.pixels[part]
            unit = scale(pixels, ends) if window is None else self._as_saved(pixels, window)
            images = resize(unit, size, scan.spacing_mm[1:])
            result[start : start + _CHUNK] = np.rint(_to_channels(images, channels) * LEVELS)
        result /= LEVELS
        return result

    def _as_saved(self, pixels: np.ndarray, window: Window) -> np.ndarray:
        """(S, H, W, C) in 0–1, as the model sees pictures saved through `window`."""
        ends = window_range(window)
        if self.config.pictures == "full_range":
            return scale(pixels, ends)
        shown = np.clip(pixels, *ends)
        each = [scale(image, percentile_range(image, self.config.percentiles)) for image in shown]
        return np.stack(each)

    def views(self, scan: Scan) -> list[tuple[str, Window | None]]:
        """The renderings under which the slices of a scan enter a gallery.

        The model's own; for HU also the file's first window ("own") and the configured
        ones ("-600/1500"), so that a picture saved with one of them finds its slice.
        No window occurs twice.
        """
        found: list[tuple[str, Window | None]] = [("model", None)]
        if scan.unit != "HU":
            return found
        # A model that stretches pictures sees one saved through its own window otherwise.
        seen = {self.config.ct_window} if self.config.pictures == "full_range" else set()
        named = [("own", scan.window)] if scan.window and scan.window[1] >= 1 else []
        named += [(f"{window[0]:g}/{window[1]:g}", window) for window in self.config.index_windows]
        for name, window in named:
            if window not in seen:
                seen.add(window)
                found.append((name, window))
        return found


def sample_slices(count: int, budget: int) -> np.ndarray:
    """At most `budget` of `count` slice numbers, evenly spaced, the first and last among them.

    A budget of one takes the middle slice.
    """
    if count <= budget:
        return np.arange(count)
    if budget == 1:
        return np.array([count // 2])
    return np.linspace(0, count - 1, budget).round().astype(int)


def _to_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """(S, H, W, 1 or 3) → (S, channels, H, W): grey is repeated, colour weighted to luma."""
    if channels == 1 and images.shape[3] == 3:
        images = (images @ np.array(LUMA, dtype=np.float32))[..., np.newaxis]
    return np.broadcast_to(np.moveaxis(images, 3, 1), (len(images), channels, *images.shape[1:3]))
