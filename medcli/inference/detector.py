"""From scans to boxes, with one model load and without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from medcli.errors import DamagedError
from medcli.imaging.placing import out_of_square
from medcli.imaging.preprocess import Preprocessor
from medcli.inference.engine import open_graph
from medcli.inference.lesions import join_slices
from medcli.inference.regions import answer, choose_proposals
from medcli.models.package import GRAPH, REGIONS_GRAPH, ModelPackage
from medcli.records import Detection, Failure, FoundBox, Scan

BATCH = 8  # slices that go through the graph together


class Detector:
    """A detector's package ready to answer.

    Raises
    ------
    DamagedError : a graph is missing or cannot be loaded
    """

    def __init__(self, package: ModelPackage) -> None:
        if package.detection is None:
            raise ValueError(f"{package.path} is no detector")
        self.package, self.config = package, package.detection
        self.preprocessor = Preprocessor(package.preprocess)
        self._propose = open_graph(_there(package.path / GRAPH))
        self._judge = open_graph(_there(package.path / REGIONS_GRAPH))

    @property
    def threshold(self) -> float:
        """The score from which a box counts, unless another is asked for."""
        return self.package.task.threshold or 0.5

    def detect(self, scan: Scan, score: float | None = None) -> Detection:
        """The boxes of a scan with at least `score`, by default the model's threshold."""
        least = self.threshold if score is None else score
        kept = [box for box in self.boxes(scan) if box.score >= least]
        boxes, lesions = join_slices(kept)
        return Detection(
            path=scan.path,
            scan_id=scan.scan_id,
            files=scan.files,
            task=self.package.task.name,
            boxes=boxes,
            lesions=lesions,
            model=self.package.fingerprint,
            synthetic=self.package.synthetic,
            warnings=scan.warnings,
        )

    def detect_all(
        self, scans: Iterable[Scan | Failure], score: float | None = None
    ) -> Iterator[Detection | Failure]:
        """`detect` for each scan; failures are handed on."""
        for scan in scans:
            yield scan if isinstance(scan, Failure) else self.detect(scan, score)

    def boxes(self, scan: Scan) -> list[FoundBox]:
        """Every box of every slice, down to the lowest score that the model keeps."""
        found: list[FoundBox] = []
        for start in range(0, len(scan.pixels), BATCH):
            numbers = np.arange(start, min(start + BATCH, len(scan.pixels)))
            found += self._of_slices(scan, numbers)
        return found

    def _of_slices(self, scan: Scan, numbers: np.ndarray) -> Iterator[FoundBox]:
        images = self.preprocessor.model_input(scan, slices=numbers)
        features, objectness, boxes = self._propose.run(
            ["features", "objectness", "boxes"], {"images": images}
        )
        regions = choose_proposals(objectness, boxes, self.config)
        logits, judged = self._judge.run(
            ["logits", "boxes"], {"features": features, "regions": regions}
        )
        classes, size = self.package.task.classes, self.package.preprocess.size
        shape, spacing = scan.pixels.shape[1:3], scan.spacing_mm[1:]
        for number, each in zip(
            numbers.tolist(),
            answer(regions, logits, judged, len(numbers), self.config),
            strict=True,
        ):
            places = out_of_square(each.boxes, shape, size, spacing).tolist()
            for place, score, k in zip(places, each.scores, each.classes, strict=True):
                x0, y0, x1, y1 = place
                yield FoundBox(x0, y0, x1, y1, float(score), number, classes[k])


def _there(graph: Path) -> Path:
    if not graph.is_file():
        raise DamagedError(
            f"{graph.parent}: {graph.name} is missing from the model package",
            "Restore the folder from a backup or train again",
        )
    return graph
