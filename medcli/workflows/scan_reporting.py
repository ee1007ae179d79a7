"""Scans and what a model says of them → one page to look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from medcli.errors import DamagedError, UsageError
from medcli.evaluation.calibration import ECE_BINS
from medcli.evaluation.curves import wilson_bounds
from medcli.imaging.display import display_slice, display_tones, tones_of
from medcli.imaging.preprocess import sample_slices
from medcli.imaging.resize import fitted_shape, resample
from medcli.models.bundled import specialist
from medcli.models.held_out import read_held_out
from medcli.models.package import CARD, ModelPackage, load_package
from medcli.records import Failure, Prediction, Scan, SearchResult
from medcli.report.cards import PictureKey
from medcli.report.pictures import encode_jpeg
from medcli.report.scan_page import ScanAnswer, scan_page
from medcli.report.viewer import ShownSlice
from medcli.workflows.explaining import heat_at

if TYPE_CHECKING:
    from medcli.explain.explainer import Explainer, Explanation

METHOD = "gradcam"
MOST_SCANS = 40
MOST_SLICES = 24  # of one scan
SLICE_BUDGET = 96  # of a page
HOTTEST = 3  # of these slices, those with the largest share of the heat
STACK_SIDE, PICTURE_SIDE, HEAT_SIDE = 256, 640, 64  # pixels
FEWEST = 5  # held-out scans behind an observed share


class ScanReport:
    """A page that is filled scan by scan: no scan is kept.

    Parameters
    ----------
    package : the model that answers
    scans : how many will come; the more, the fewer slices of each are shown
    heat : draw where the model looked; loads torch
    """

    def __init__(self, package: ModelPackage, scans: int = 1, *, heat: bool = True) -> None:
        self.package = package
        self._answering: dict[str, ModelPackage] = {}  # by task
        self._slices = min(MOST_SLICES, max(HOTTEST + 1, SLICE_BUDGET // max(1, scans)))
        self._wants_heat = heat
        self._explainers: dict[str, Explainer] = {}
        self.answers: list[ScanAnswer] = []
        self._left_out = 0

    def add(
        self,
        scan: Scan,
        prediction: Prediction,
        result: SearchResult | None = None,
        agrees: bool | None = None,
    ) -> None:
        """Keep what the page shows of a scan.

        Parameters
        ----------
        result, agrees : the nearest stored scans, and whether they agree, where asked
        """
        if len(self.answers) == MOST_SCANS:
            self._left_out += 1
            return
        explanation, told = self._explained(scan, prediction)
        chosen = _chosen(len(scan.pixels), self._slices, explanation)
        slices = list(_shown(scan, chosen, explanation))
        shares = [each.share or 0.0 for each in slices]
        first = int(np.argmax(shares)) if any(shares) else len(slices) // 2
        self.answers.append(
            ScanAnswer(
                prediction=prediction,
                facts=_facts(scan),
                slices=slices,
                first=first,
                still=encode_jpeg(display_slice(scan, slices[first].number, edge=STACK_SIDE)),
                unit=scan.unit,
                count=len(scan.pixels),
                heat_told=told,
                readings=list(_readings(self._package_of(prediction), prediction)),
                result=result,
                agrees=agrees,
            )
        )

    def _explained(self, scan: Scan, prediction: Prediction) -> tuple[Explanation | None, str]:
        """Where the model looked, and what that is or why it is not known."""
        if not self._wants_heat:
            return None, ""
        if prediction.label is None:
            return None, "No finding was named, so that there is none to draw a heat map for."
        try:
            explained = self._explainer_of(prediction).explain(scan, METHOD, prediction.label)
        except UsageError as error:
            return None, f"No heat map: {error.message}."
        except DamagedError:  # its message names a path, and the answer stands without a map
            return None, "No heat map: the weights are not those of the model's network."
        if explained.empty:
            return None, f"Heat map ({METHOD}): nothing speaks for {prediction.label}."
        return explained, f"Heat map ({METHOD}): what speaks for {prediction.label}."

    def _package_of(self, prediction: Prediction) -> ModelPackage:
        """The model that answered: the one that was asked, or its specialist."""
        task = prediction.task
        if task not in self._answering:
            asked, folder = self.package, specialist(task)
            if prediction.model != asked.fingerprint and folder is not None:
                asked = load_package(folder)
            self._answering[task] = asked.only(task)
        return self._answering[task]

    def _explainer_of(self, prediction: Prediction) -> Explainer:
        if prediction.task not in self._explainers:
            from medcli.explain.explainer import Explainer

            self._explainers[prediction.task] = Explainer(self._package_of(prediction))
        return self._explainers[prediction.task]

    def html(
        self,
        *,
        failures: Sequence[Failure] = (),
        pictures: Mapping[PictureKey, bytes] | None = None,
        hide_paths: bool = False,
        stand_ins: Mapping[str, str] | None = None,
    ) -> str:
        """The page; arguments as for `scan_page`.

        Raises
        ------
        UsageError : no scan was added
        """
        if not self.answers:
            raise UsageError("a report needs a scan that was answered", "Name another scan")
        notes = []
        if self._left_out:
            notes.append(f"The first {MOST_SCANS} scans are shown; {self._left_out} more are not.")
        return scan_page(
            self.answers,
            facts=_model_facts(self.package, hide_paths=hide_paths),
            pictures=pictures,
            failures=failures,
            notes=notes,
            model_card=self._cards(),
            synthetic=any(answer.prediction.synthetic for answer in self.answers),
            hide_paths=hide_paths,
            stand_ins=stand_ins,
            created=datetime.now().astimezone(),
        )

    def _cards(self) -> str:
        """The cards of all models that answered."""
        paths = dict.fromkeys(package.path / CARD for package in self._answering.values())
        return "\n\n".join(path.read_text(encoding="utf-8") for path in paths)


def _chosen(count: int, most: int, explanation: Explanation | None) -> np.ndarray:
    """Numbers of the slices in the page: evenly spread, and the hottest."""
    if count <= most or explanation is None:
        return sample_slices(count, most)
    hottest = explanation.slices[np.argsort(-explanation.shares, kind="stable")[:HOTTEST]]
    return np.union1d(sample_slices(count, most - HOTTEST), hottest)


def _shown(scan: Scan, chosen: np.ndarray, explanation: Explanation | None) -> Iterator[ShownSlice]:
    """The slices with their values, in true proportion, and their heat."""
    side = STACK_SIDE if len(scan.pixels) > 1 else PICTURE_SIDE
    longer = max(scan.pixels.shape[1:3])
    spacing = scan.spacing_mm[1:]
    shape = fitted_shape(scan.pixels.shape[1:3], min(side, longer), spacing)
    small = fitted_shape(scan.pixels.shape[1:3], HEAT_SIDE, spacing)
    tones = display_tones(scan)
    shares: dict[int, float] = {}
    if explanation is not None:
        shares = dict(zip(explanation.slices.tolist(), explanation.shares.tolist(), strict=True))
    for number in chosen.tolist():
        image = scan.pixels[number : number + 1]
        values = resample(image, *shape)[0]
        colour = values.shape[2] == 3
        ends = tones_of(tones, number).values[[0, -1]]
        heat = None
        if explanation is not None:
            whole = heat_at(explanation, np.array([number]))[..., None]
            heat = resample(whole, *small)[0, ..., 0]
        yield ShownSlice(
            number=number,
            values=np.rint(values).clip(0, 255).astype(np.uint8) if colour else values[..., 0],
            ends=None if colour else (float(ends[0]), float(ends[1])),
            heat=heat,
            share=shares.get(number),
        )


def _facts(scan: Scan) -> list[tuple[str, str]]:
    """What was read."""
    slices, rows, columns, _ = scan.pixels.shape
    z, y, x = scan.spacing_mm
    facts = [("Modality", scan.modality or scan.format)]
    if slices > 1:
        facts.append(("Slices", f"{slices}" + (f" every {z:.3g} mm" if z else "")))
    size = f"{columns} × {rows}" + (f" of {x:.3g} × {y:.3g} mm" if x and y else "")
    return [*facts, ("Pixels", size)]


def _readings(package: ModelPackage, prediction: Prediction) -> Iterator[str]:
    """How the probability is to be read."""
    if prediction.label_set is not None:
        held = ", ".join(prediction.label_set) or "none"
        coverage = package.heads[0].calibration.coverage
        yield f"Label set at {100 * coverage:.0f} %: {held}."
    told = _observed_share(package, prediction)
    if told:
        yield told


def _observed_share(package: ModelPackage, prediction: Prediction) -> str:
    """How often the label held for held-out scans that were given a like probability.

    Likeness is a common bin of the 15 of the calibration error; the interval is Wilson's.
    """
    if prediction.probability is None or prediction.labels is not None:
        return ""
    answers = read_held_out(package)
    if answers is None or answers.of_findings:
        return ""
    column = package.task.classes.index(str(prediction.label))
    bins = np.ceil(answers.probabilities[:, column] * ECE_BINS)
    own = np.ceil(prediction.probability * ECE_BINS)
    alike = answers.labels[bins == own]
    if len(alike) < FEWEST:
        return f"Fewer than {FEWEST} held-out scans were given a like probability."
    share = np.array([(alike == column).mean()])
    low, high = wilson_bounds(share, np.array([len(alike)]))[:, 0]
    return (
        f"Of {len(alike)} held-out scans that were given {(own - 1) / ECE_BINS:.2f} to "
        f"{own / ECE_BINS:.2f}, {100 * share[0]:.0f} % ({100 * low:.0f}–{100 * high:.0f} %) were "
        f"{prediction.label}."
    )


def _model_facts(package: ModelPackage, *, hide_paths: bool) -> list[tuple[str, str]]:
    facts = {
        "Model": None if hide_paths else package.path.absolute().name,
        "Task": package.task_names,
        "Fingerprint": package.fingerprint,
    }
    return [(name, value) for name, value in facts.items() if value]
