"""A search on record: what was asked of which gallery, what it answered, and again today.

A receipt holds the vectors of its queries, so that it can be replayed without their files,
and patients as the gallery's keyed hashes. It is JSON, with a checksum over all of it.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medcli.errors import DamagedError, MedcliError, UsageError
from medcli.records import SearchResult, plain
from medcli.retrieval.query import Query, Wanted
from medcli.retrieval.search import search

if TYPE_CHECKING:
    from medcli.retrieval.gallery import Gallery
    from medcli.workflows.searching import Answer

FORMAT = 1
_SAME_SCORE = 1e-5


@dataclass(frozen=True, slots=True)
class Replayed:
    """One query of a receipt, asked again; `changes` says in words what is not as it was.

    `result` is None where the search could not be made again.
    """

    query: str
    result: SearchResult | None
    changes: tuple[str, ...]


def receipt(
    gallery: Gallery, wanted: Wanted, answers: Sequence[Answer], names: Mapping[str, str]
) -> bytes:
    """The receipt of some answers of one gallery.

    Parameters
    ----------
    names : what each query is called in it
    """
    from importlib.metadata import version

    with gallery.snapshot() as state:
        last = gallery.catalogue.last_id()
    values = {
        "receipt": FORMAT,
        "medcli": version("medcli"),
        "gallery": {
            "id": gallery.uuid,
            "generation": state.generation,
            "fingerprint": gallery.fingerprint,
            "scans": state.scans,
            "last_id": last,
        },
        "wanted": dataclasses.asdict(wanted),
        "queries": [_query_record(each, names) for each in answers],
    }
    told = plain(values)
    return json.dumps({**told, "checksum": _checksum(told)}, indent=1).encode() + b"\n"


def read_receipt(path: Path) -> dict[str, Any]:
    """The content of a receipt.

    Raises
    ------
    UsageError : there is none at `path`, or a newer medcli wrote it
    DamagedError : it was changed
    """
    try:
        values = json.loads(path.read_bytes())
        version, checksum = values["receipt"], values.pop("checksum")
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist", "Write one: medcli search --receipt") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} is no receipt of a search", "Write one: medcli search --receipt"
        ) from error
    if version != FORMAT:
        raise UsageError(
            f"{path} has format {version}; this medcli reads {FORMAT}",
            "upgrade medcli: pip install --upgrade medcli",
        )
    if _checksum(values) != checksum:
        raise DamagedError(
            f"{path} was changed: it does not match its checksum", "Restore it from a backup"
        )
    return dict(values)


def changes_of_gallery(gallery: Gallery, record: Mapping[str, Any]) -> list[str]:
    """What is not as it was when the receipt was written, in words.

    Raises
    ------
    MismatchError : the gallery was built with another model
    """
    then = record["gallery"]
    gallery.check_fingerprint(then["fingerprint"])
    with gallery.snapshot() as state:
        (added,) = gallery.catalogue.connection.execute(
            "SELECT COUNT(*) FROM scans WHERE id > ?", (then["last_id"],)
        ).fetchone()
    if gallery.uuid != then["id"]:
        return ["this is another gallery of the same model: name the one of the receipt with -g"]
    if state.generation == then["generation"]:
        return []
    removed = then["scans"] + added - state.scans
    told = f"the gallery went from generation {then['generation']} to {state.generation}: "
    return [f"{told}{added} scans added, {removed} removed since"]


def replay(gallery: Gallery, record: Mapping[str, Any]) -> Iterator[Replayed]:
    """Ask each query of a receipt again and compare ids, labels and scores."""
    values = record["wanted"]
    wanted = Wanted(**{**values, "more": tuple(values["more"]), "less": tuple(values["less"])})
    for each in record["queries"]:
        try:
            result = search(gallery, _query(each), wanted)
        except MedcliError as error:
            yield Replayed(each["query"], None, (f"cannot be asked again: {error.message}",))
            continue
        changes = tuple(_changes(gallery, each["hits"], result, record["gallery"]["last_id"]))
        yield Replayed(each["query"], result, changes)


def _changes(
    gallery: Gallery, then: Sequence[Mapping[str, Any]], result: SearchResult, last: int
) -> Iterator[str]:
    """What differs between the hits then and now."""
    old, new = {hit["id"]: hit for hit in then}, {hit.id: hit for hit in result.hits}
    for hit in result.hits:
        if hit.id not in old:
            why = "added since" if hit.id > last else "not a hit then"
            yield f"scan {hit.id} is a hit now, at rank {hit.rank}: {why}"
    for scan, was in old.items():
        if scan not in new:
            gone = not gallery.lookup(id=scan)
            yield f"scan {scan}, rank {was['rank']} then, is {'removed' if gone else 'no hit now'}"
            continue
        now = new[scan]
        if abs(now.score - was["score"]) > _SAME_SCORE:
            yield f"scan {scan} scores {now.score:.6f}, not {was['score']:.6f}"
        if now.label != was["label"]:
            yield f"scan {scan} has the label {now.label}, not {was['label']}"
    order = [scan for scan in old if scan in new]
    if order != [hit.id for hit in result.hits if hit.id in old]:
        yield "the hits that stayed are in another order"


def _query_record(answer: Answer, names: Mapping[str, str]) -> dict[str, Any]:
    query = answer.asked
    return {
        "query": names[answer.result.query],
        **_identity(query),
        "vector": _packed(query.vector),
        "slice_vectors": _packed(query.slice_vectors),
        "slice_numbers": query.slice_numbers,
        "study_date": query.study_date,
        "joined": [_identity(each) for each in query.joined],
        "hits": [
            {"rank": hit.rank, "id": hit.id, "score": hit.score, "label": hit.label}
            for hit in answer.result.hits
        ],
    }


def _identity(query: Query) -> dict[str, Any]:
    return {
        "patient": query.patient,
        "pixel_sha256": query.pixel_sha256,
        "exclude": query.exclude,
        "is_part": query.is_part,
    }


def _query(record: Mapping[str, Any]) -> Query:
    vector = _unpacked(record["vector"])
    return Query(
        name=record["query"],
        vector=vector,
        slice_vectors=_unpacked(record["slice_vectors"]).reshape(-1, len(vector)),
        slice_numbers=np.array(record["slice_numbers"], dtype=np.int64),
        study_date=record["study_date"],
        joined=tuple(_known_only(each, len(vector)) for each in record["joined"]),
        **_identity_of(record),
    )


def _known_only(record: Mapping[str, Any], dim: int) -> Query:
    """A scan that was joined: its vector is in that of the query already."""
    nothing = np.empty((0, dim), np.float32)
    return Query("", np.zeros(dim, np.float32), nothing, np.empty(0, int), **_identity_of(record))


def _identity_of(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "patient": record["patient"],
        "pixel_sha256": record["pixel_sha256"],
        "exclude": tuple(record["exclude"]),
        "is_part": record["is_part"],
    }


def _packed(vectors: np.ndarray) -> str:
    """float32, little-endian, in base64."""
    return base64.b64encode(vectors.astype("<f4").tobytes()).decode("ascii")


def _unpacked(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32)


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
