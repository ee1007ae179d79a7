"""Query scans → similar scans of a gallery."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcli.errors import DamagedError
from medcli.imaging.batch import read_all
from medcli.imaging.hashing import pixel_sha256
from medcli.records import Case, Failure, Prediction, Scan, SearchResult
from medcli.retrieval.query import Query
from medcli.retrieval.search import search
from medcli.retrieval.storage import DAMAGE_HINT
from medcli.workflows.indexing import thumbnails

if TYPE_CHECKING:
    from medcli.inference.predictor import Predictor
    from medcli.models.package import ModelPackage
    from medcli.retrieval.gallery import Gallery

QUERY_SIDE = 192  # pixels


@dataclass(frozen=True, slots=True)
class Answer:
    """A search result with what the model says of the query, and the query's picture (JPEG)."""

    case: Case
    result: SearchResult
    prediction: Prediction
    picture: bytes | None
    pixel_sha256: str
    patient_id: str | None = field(default=None, repr=False)


def search_scans(
    gallery: Gallery,
    predictor: Predictor,
    cases: Iterable[Case | Failure],
    *,
    k: int = 5,
    same_patient: bool = False,
    pictures: bool = False,
) -> Iterator[Answer | Failure]:
    """The answer to each query, in order; unreadable queries come back as failures.

    Parameters
    ----------
    k : hits wanted
    same_patient : also scans of the query's own patient
    pictures : draw each query
    """
    for case, scan in read_all(cases):
        if isinstance(scan, Failure):
            yield scan
            continue
        assert isinstance(case, Case)
        yield _answer(gallery, predictor, case, scan, k, same_patient, pictures)


def _answer(
    gallery: Gallery,
    predictor: Predictor,
    case: Case,
    scan: Scan,
    k: int,
    same_patient: bool,
    pictures: bool,
) -> Answer:
    embedding = predictor.embed(scan)
    pixels = pixel_sha256(scan)
    query = Query.from_embedding(
        scan.path,
        embedding,
        patient=gallery.patient_hash(scan.patient_id),
        pixel_sha256=pixels,
    )
    result = search(gallery, query, k, same_patient)
    result = replace(result, warnings=(*scan.warnings, *result.warnings))
    shown = result.query_slice if result.query_slice is not None else len(scan.pixels) // 2
    return Answer(
        case=case,
        result=result,
        prediction=predictor.prediction(scan, embedding.logits, embedding.ood_score),
        picture=next(thumbnails(scan, [shown], QUERY_SIDE)) if pictures else None,
        pixel_sha256=pixels,
        patient_id=scan.patient_id,
    )


def hit_pictures(
    gallery: Gallery, results: Sequence[SearchResult]
) -> dict[tuple[int, int | None], bytes]:
    """The stored thumbnail of each hit, by (id, slice)."""
    wanted = {(hit.id, hit.slice) for result in results for hit in result.hits}
    found = {key: gallery.thumbnail(*key) for key in sorted(wanted, key=str)}
    return {key: picture for key, picture in found.items() if picture is not None}


def open_gallery(
    path: Path, *, write: bool = False, lock_timeout: float = 60.0
) -> tuple[Gallery, Predictor]:
    """A gallery and the model that lies in it.

    Raises
    ------
    UsageError : no gallery at `path`, or a newer medcli wrote it
    DamagedError : the gallery is damaged, or its model is: missing, altered, another one
    """
    from medcli.inference.predictor import Predictor
    from medcli.retrieval.gallery import Gallery

    gallery = Gallery.open(path, write=write, lock_timeout=lock_timeout)
    try:
        return gallery, Predictor(own_model(gallery))
    except BaseException:
        gallery.close()
        raise


def own_model(gallery: Gallery) -> ModelPackage:
    """The copy of the model in a gallery; what is wrong with it is wrong with the gallery."""
    from medcli.models.package import is_package, load_package

    if not is_package(gallery.model_dir):
        raise DamagedError(f"{gallery.path} has lost its copy of the model", DAMAGE_HINT)
    try:
        package = load_package(gallery.model_dir)
    except DamagedError as error:
        raise DamagedError(error.message, DAMAGE_HINT) from error
    if package.fingerprint != gallery.fingerprint:
        raise DamagedError(
            f"{gallery.model_dir} holds model {package.fingerprint}, but the gallery was built "
            f"with {gallery.fingerprint}",
            DAMAGE_HINT,
        )
    return package


def page_parts(
    gallery: Gallery, package: ModelPackage, answers: Sequence[Answer]
) -> dict[str, Any]:
    """What a page about `answers` shows: results, pictures, predictions and true labels."""
    results = [answer.result for answer in answers]
    pictures: dict[Any, bytes] = dict(hit_pictures(gallery, results))
    pictures |= {a.result.query: a.picture for a in answers if a.picture is not None}
    return {
        "results": results,
        "pictures": pictures,
        "model": {"task": package.task_names},
        "predictions": {answer.result.query: answer.prediction for answer in answers},
        "true_labels": {a.result.query: a.case.label for a in answers if a.case.label},
    }
