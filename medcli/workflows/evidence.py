"""A prediction beside the stored scans most like the scan, and whether the two agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medcli.records import Case, Failure, Prediction, Scan, SearchResult
from medcli.retrieval.query import Wanted
from medcli.workflows.searching import search_scans

if TYPE_CHECKING:
    from medcli.inference.predictor import Predictor
    from medcli.retrieval.gallery import Gallery

NEIGHBOURS = 5


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the model says of a scan, and what its neighbours of other patients are called.

    `agrees` says whether no label has more votes than the predicted one; None where nothing
    votes, or where a scan may have several findings.
    """

    prediction: Prediction
    result: SearchResult
    agrees: bool | None


def with_evidence(
    gallery: Gallery,
    predictor: Predictor,
    cases: Iterable[Case | Failure],
    k: int = NEIGHBOURS,
    crop: Callable[[Scan], Scan] | None = None,
) -> Iterator[Evidence | Failure]:
    """The prediction of each scan with its `k` nearest stored scans; failures pass through.

    Parameters
    ----------
    crop : cuts out of a scan what the model is asked about
    """
    wanted = Wanted(k=k, contrast=True)
    for answer in search_scans(gallery, predictor, cases, wanted, crop=crop):
        if isinstance(answer, Failure):
            yield answer
            continue
        assert answer.prediction is not None  # the scan was read
        prediction, result = answer.prediction, answer.result
        yield Evidence(prediction, result, _agrees(prediction, result))


def _agrees(prediction: Prediction, result: SearchResult) -> bool | None:
    if not result.vote or prediction.label is None or prediction.labels is not None:
        return None
    return result.vote.get(prediction.label, 0.0) == max(result.vote.values())
