"""Query scans → similar scans of a gallery."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from medcli.errors import DamagedError, MedcliError, ScanError, UsageError
from medcli.evaluation.intervals import wilson_interval
from medcli.home import for_gallery
from medcli.imaging.batch import read_all
from medcli.imaging.hashing import pixel_sha256
from medcli.records import Case, Embedding, Failure, Prediction, Scan, SearchResult
from medcli.retrieval.query import Query, Wanted, joined
from medcli.retrieval.search import search_many
from medcli.retrieval.storage import damage_hint
from medcli.workflows.picturing import query_picture, stored_picture
from medcli.workflows.sources import kept_metadata

if TYPE_CHECKING:
    from medcli.config import EngineName, Window
    from medcli.inference.predictor import Predictor
    from medcli.inference.remembered import Tell
    from medcli.models.package import ModelPackage
    from medcli.retrieval.gallery import Gallery

_TOGETHER = 32  # queries that share a pass over the vectors
_HELD_BYTES = 64 << 20  # of pixels of the scans that wait for it


@dataclass(frozen=True, slots=True)
class Answer:
    """A search result, and what it was made from.

    Parameters
    ----------
    asked : the query as it was searched with
    case, prediction : what was read and what the model says of it; None for a scan
        that is asked for by its id
    picture : JPEG of the query, where pictures are wanted
    window : that it was drawn in, of a query in HU
    facts, modality, format : what a gallery would keep of the scan; not of a stored one
    """

    result: SearchResult
    asked: Query = field(repr=False)
    case: Case | None = None
    prediction: Prediction | None = None
    picture: bytes | None = field(default=None, repr=False)
    window: Window | None = None
    pixel_sha256: str | None = None
    patient_id: str | None = field(default=None, repr=False)
    facts: Mapping[str, str] = field(default_factory=dict, repr=False)
    modality: str | None = None
    format: str | None = None


def search_scans(
    gallery: Gallery,
    predictor: Predictor,
    cases: Iterable[Case | Failure],
    wanted: Wanted | None = None,
    *,
    crop: Callable[[Scan], Scan] | None = None,
    first_slice: int = 0,
    plus: Sequence[Query] = (),
    minus: Sequence[Query] = (),
    pictures: bool = False,
) -> Iterator[Answer | Failure]:
    """The answer to each query, in order; unreadable queries come back as failures.

    Parameters
    ----------
    crop : cuts out of each scan the part to search with
    first_slice : of the scan, with which that part begins
    plus, minus : joined to each query; see `medcli.retrieval.query.joined`
    pictures : draw each query

    Raises
    ------
    UsageError : no condition in `where`, no such part, nothing is left of a joined query
    """

    def asked() -> Iterator[_Asked | Failure]:
        for case, scan in read_all(cases):
            if isinstance(scan, Failure):
                yield scan
                continue
            assert isinstance(case, Case)
            query, embedding, seen = scan_query(gallery, predictor, scan, crop)
            yield _Asked(case, scan, seen, joined(query, plus, minus), embedding)

    for group in _groups(asked()):
        queries = [each.query for each in group if isinstance(each, _Asked)]
        results = iter(searched(gallery, queries, wanted))
        for each in group:
            if isinstance(each, Failure):
                yield each
            else:
                yield _answer(each, next(results), predictor, first_slice, pictures=pictures)


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A scan that was read, what is seen of it, and what is asked."""

    case: Case
    scan: Scan
    seen: Scan
    query: Query
    embedding: Embedding


def _groups(asked: Iterator[_Asked | Failure]) -> Iterator[list[_Asked | Failure]]:
    """Queries that are asked together: some, or fewer where they hold much memory.

    What comes before an error is answered before it is raised.
    """
    group: list[_Asked | Failure] = []
    held = 0
    try:
        for each in asked:
            group.append(each)
            held += each.scan.pixels.nbytes if isinstance(each, _Asked) else 0
            if len(group) >= _TOGETHER or held >= _HELD_BYTES:
                yield group
                group, held = [], 0
    except MedcliError:
        yield group
        raise
    yield group


def _answer(
    asked: _Asked, result: SearchResult, predictor: Predictor, first_slice: int, *, pictures: bool
) -> Answer:
    """The answer to a scan; its slices count from `first_slice` of the scan."""
    scan, query, embedding = asked.scan, asked.query, asked.embedding
    drawn, window = None, None
    if pictures:
        drawn, window = query_picture(asked.seen, result.query_slice, predictor.package)
    if result.query_slice is not None:
        result = replace(result, query_slice=result.query_slice + first_slice)
    return Answer(
        result=replace(result, warnings=(*scan.warnings, *result.warnings)),
        asked=query,
        case=asked.case,
        prediction=predictor.prediction(asked.seen, embedding.logits, embedding.task_ood_scores),
        picture=drawn,
        window=window,
        pixel_sha256=query.pixel_sha256,
        patient_id=scan.patient_id,
        facts=kept_metadata(asked.case, scan),
        modality=scan.modality,
        format=scan.format,
    )


def search_stored(
    gallery: Gallery,
    ids: Iterable[int],
    wanted: Wanted | None = None,
    *,
    plus: Sequence[Query] = (),
    minus: Sequence[Query] = (),
    pictures: bool = False,
) -> Iterator[Answer]:
    """The answer to each stored scan, by the vectors that are stored.

    Raises
    ------
    UsageError : there is no scan of that id
    """
    queries = stored_queries(gallery, ids)
    joint = [joined(query, plus, minus) for query in queries]
    results = searched(gallery, joint, wanted)
    for query, asked, result in zip(queries, joint, results, strict=True):
        yield Answer(
            result=result,
            asked=asked,
            picture=stored_picture(gallery, query, result.query_slice) if pictures else None,
            pixel_sha256=asked.pixel_sha256,
        )


def searched(
    gallery: Gallery, queries: Sequence[Query], wanted: Wanted | None
) -> list[SearchResult]:
    """`search_many`, with an interval for each share of the vote."""
    results = []
    for result in search_many(gallery, queries, wanted):
        votes = Counter(hit.label for hit in result.hits if hit.label is not None)
        intervals = {label: wilson_interval(votes[label], votes.total()) for label in result.vote}
        results.append(replace(result, vote_ci=intervals))
    return results


def scan_query(
    gallery: Gallery,
    predictor: Predictor,
    scan: Scan,
    crop: Callable[[Scan], Scan] | None = None,
) -> tuple[Query, Embedding, Scan]:
    """The query of a scan, its embedding, and the scan or its part.

    The pixels by which a gallery knows a scan are those of all of it.

    Raises
    ------
    UsageError : there is no such part
    """
    pixels = pixel_sha256(scan)
    seen = scan if crop is None else crop(scan)
    embedding = predictor.embed(seen)
    marks = gallery.study_marks(scan.patient_id, None, scan.study_date)
    query = Query.from_embedding(
        scan.path,
        embedding,
        patient=gallery.patient_hash(scan.patient_id),
        pixel_sha256=pixels,
        is_part=seen.pixels.shape != scan.pixels.shape,
        study_date=marks.get("study_date"),
    )
    return query, embedding, seen


def stored_queries(gallery: Gallery, ids: Iterable[int]) -> list[Query]:
    """The queries of stored scans, in the order of `ids`.

    Raises
    ------
    UsageError : there is no scan of that id
    """
    wanted = list(ids)
    with gallery.snapshot():
        found = {scan.id: Query.from_stored(scan) for scan in gallery.catalogue.stored(wanted)}
    for scan in wanted:
        if scan not in found:
            raise UsageError(
                f"no stored scan has the id {scan}",
                f"Ids are those of `medcli search --json`; a file of that name is ./{scan}",
            )
    return [found[scan] for scan in wanted]


def joining_queries(
    gallery: Gallery, predictor: Predictor, cases: Iterable[Case | Failure]
) -> list[Query]:
    """The queries of scans that are to be joined to another.

    Raises
    ------
    ScanError : one of them cannot be read
    """
    queries = []
    for _, scan in read_all(cases):
        if isinstance(scan, Failure):
            raise ScanError(scan.code, scan.message)
        queries.append(scan_query(gallery, predictor, scan)[0])
    return queries


def open_gallery(
    path: Path,
    *,
    write: bool = False,
    lock_timeout: float = 60.0,
    engine: EngineName = "auto",
    tell: Tell = lambda sentence: None,
) -> tuple[Gallery, Predictor]:
    """A gallery and the model that lies in it; `engine` and `tell` as of `Predictor`.

    Raises
    ------
    UsageError : no gallery at `path`, a newer medcli wrote it, or the engine is not installed
    DamagedError : the gallery is damaged, or its model is: missing, altered, another one
    """
    from medcli.inference.predictor import Predictor
    from medcli.retrieval.gallery import Gallery

    gallery = Gallery.open(path, write=write, lock_timeout=lock_timeout)
    try:
        return gallery, Predictor(own_model(gallery), engine, tell)
    except BaseException:
        gallery.close()
        raise


def own_model(gallery: Gallery) -> ModelPackage:
    """The copy of the model in a gallery; what is wrong with it is wrong with the gallery.

    Raises
    ------
    DamagedError : it is missing, altered, or another model
    """
    from medcli.models.package import is_package, load_package

    if not is_package(gallery.model_dir):
        raise DamagedError(f"{gallery.path} has lost its copy of the model", _model_hint(gallery))
    try:
        package = load_package(gallery.model_dir)
    except DamagedError as error:
        raise DamagedError(error.message, _model_hint(gallery)) from error
    if package.fingerprint != gallery.fingerprint:
        raise DamagedError(
            f"{gallery.model_dir} holds model {package.fingerprint}, but the gallery was built "
            f"with {gallery.fingerprint}",
            _model_hint(gallery),
        )
    return package


def _model_hint(gallery: Gallery) -> str:
    """The ways out of a damaged copy of the model: `index repair` needs a sound one."""
    from medcli.models.locate import same_package

    if same_package(gallery.model_dir, gallery.fingerprint) is not None:
        return damage_hint(gallery.path)
    again = for_gallery("medcli index repair --model MODEL", gallery.path)
    others = damage_hint(gallery.path, mendable=False)
    return f"put its model back with `{again}`, {others}"
