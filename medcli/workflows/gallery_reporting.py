"""A gallery → one page about what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import PurePath

from medcli.home import for_gallery
from medcli.models.package import ModelPackage
from medcli.report.gallery_page import StoredPicture, gallery_page
from medcli.retrieval.gallery import Gallery

OF_EACH = 8
"""So many scans of each label are shown, evenly spread over those that are stored."""
MOST_LABELS = 30


def gallery_report(gallery: Gallery, package: ModelPackage, *, hide_paths: bool = False) -> str:
    """The page of an open gallery.

    Parameters
    ----------
    package : the gallery's own model

    Raises
    ------
    DamagedError : a row that is to be shown does not match its checksum
    """
    info = gallery.info()
    update = for_gallery("medcli index update", gallery.path)
    labels: list[str | None] = list(info["classes"])[:MOST_LABELS]
    if info["unlabelled"]:
        labels.append(None)
    samples = {label: list(_sampled(gallery, label, hide_paths)) for label in labels}
    return gallery_page(
        info,
        samples,
        model=[("Task", package.task_names), ("Fingerprint", package.fingerprint)],
        notes=list(_notes(info, samples, "An update" if hide_paths else update)),
        synthetic=package.synthetic,
        hide_paths=hide_paths,
        created=datetime.now().astimezone(),
    )


def _sampled(gallery: Gallery, label: str | None, hide_paths: bool) -> Iterator[StoredPicture]:
    """Some scans of a label, each with the thumbnail of its middle slice."""
    with gallery.snapshot():
        ids = gallery.catalogue.of_label(label)
    step = max(1, len(ids) / OF_EACH)
    for place in range(min(OF_EACH, len(ids))):
        (stored,) = gallery.lookup(id=ids[int(place * step)])
        row = stored.row
        yield StoredPicture(
            id=stored.id,
            name="" if hide_paths else PurePath(row.path).name,
            modality=row.modality,
            slices=row.n_slices,
            patient=row.patient,
            picture=gallery.thumbnail(stored.id, row.n_slices // 2),
        )


def _notes(
    info: dict[str, object], samples: dict[str | None, list[StoredPicture]], update: str
) -> Iterator[str]:
    """What a reader of the page should know; `update` brings the gallery up to date."""
    shown = [stored for group in samples.values() for stored in group]
    missing = sum(stored.picture is None for stored in shown)
    if missing:
        yield (
            f"{missing} of {len(shown)} scans shown have no thumbnail: they were stored without. "
            f"{update} reads their files again."
        )
    if info["unknown_patients"]:
        yield (
            f"{info['unknown_patients']} scans are of unknown patients: such a scan can be "
            "found by a query of its own patient."
        )
