"""An interrupted run leaves what is needed to go on, and a finished one nothing of it."""

from __future__ import annotations

import json
import resource
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from medcli.config import PreprocessConfig, TrainConfig
from medcli.errors import DamagedError, MedcliError, OutputExistsError, StorageError, UsageError
from medcli.models.locate import find_model
from medcli.models.package import load_package
from medcli.training import checkpoint, gather, writing
from medcli.training.checkpoint import Draft
from medcli.training.request import TrainEvents, TrainRequest
from medcli.training.run import resume_training, train
from medcli.training.state import TrainState
from medcli.training.unfinished import (
    CHECKPOINT,
    DATA,
    Plan,
    check_machine,
    draft_of,
    find_unfinished,
    load_checkpoint,
    sha256_of,
    to_bytes,
)

pytestmark = pytest.mark.usefixtures("one_thread", "without_export")
PictureManifest = Callable[..., Path]


def request(manifest: Path, output: Path | None, **more: Any) -> TrainRequest:
    asked = {"size": 16, "epochs": 3, "device": "cpu", "cache": False} | more
    return TrainRequest((str(manifest),), output=output, **asked)


def interrupt(asked: TrainRequest, told: Any, epoch: int = 2) -> Path:
    """Train up to the first batch of an epoch; the folder that is left."""

    def stop(now: int, done: float, loss: float) -> None:
        if now == epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(asked, replace(told.events, batch=stop))
    return draft_of(asked.output) if asked.output else find_unfinished("latest")


@pytest.fixture
def unfinished(picture_manifest: PictureManifest, tmp_path: Path, told: Any) -> Path:
    """A run to `tmp_path/runs/run`, interrupted in its second epoch."""
    return interrupt(request(picture_manifest(8), tmp_path / "runs" / "run"), told)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- what is left, and where it leads ----


def test_an_interrupted_run_goes_on_to_the_same_weights(
    unfinished: Path, tmp_path: Path, told: Any
) -> None:
    target = tmp_path / "runs" / "run"
    assert names(target.parent) == [".run.unfinished"]
    assert told.warnings[-1].endswith(f"go on with: medcli train --resume {target}")
    assert "epoch 1 is kept" in told.warnings[-1]
    package = resume_training(str(target), told.events)
    assert "going on after epoch 1 of 3" in told.notes
    assert names(target.parent) == ["run"]
    whole = train(request(tmp_path / "manifest.csv", tmp_path / "whole"))
    assert package.fingerprint == whole.fingerprint
    assert package.provenance["epochs_run"] == 3
    assert (target / "splits.csv").read_text().count("\n") == 9


def test_what_is_left_is_for_its_owner_alone_and_holds_no_pickle(unfinished: Path) -> None:
    assert stat.S_IMODE(unfinished.stat().st_mode) == 0o700
    kinds = [Path(name).suffix for name in names(unfinished)]
    assert kinds == [".json", ".json", ".csv", ".safetensors"]
    history = (unfinished / "history.csv").read_text().splitlines()
    assert len(history) == 2
    assert history[1].startswith("1,3,")


def test_a_finished_run_holds_nothing_of_where_it_was_made(
    unfinished: Path, tmp_path: Path
) -> None:
    package = resume_training(str(unfinished))
    for path in package.path.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name


def test_an_unfinished_run_is_no_model_and_the_newest_is_found(
    picture_manifest: PictureManifest, told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDCLI_HOME", str(tmp_path / "home"))
    with pytest.raises(UsageError, match="no unfinished run in"):
        find_unfinished("latest")
    interrupt(request(picture_manifest(8), None, task="lung"), told)
    with pytest.raises(UsageError, match="no model"):
        find_model(None)
    package = resume_training("latest")
    assert find_model("latest") == package.path
    assert package.path.name.startswith("lung-")


def test_sample_data_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Any
) -> None:
    monkeypatch.setattr(gather, "SAMPLE_PATIENTS", 9)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    asked = TrainRequest(output=Path("run"), size=16, epochs=2, device="cpu")
    interrupt(asked, told)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert resume_training("../empty/run").synthetic
    assert names(tmp_path / "empty") == ["run"]


def test_a_training_whose_run_cannot_be_written_is_not_lost(
    picture_manifest: PictureManifest, tmp_path: Path, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(picture_manifest(8), tmp_path / "runs" / "run")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writing, "save_references", fail)
        with pytest.raises(StorageError, match="No space left"):
            train(asked)
    package = resume_training(str(asked.output), told.events)
    assert told.epochs == []  # nothing is trained again
    assert package.provenance["epochs_run"] == 3


# ---- what does not fit ----


def test_an_unfinished_run_is_not_begun_again_by_accident(unfinished: Path, tmp_path: Path) -> None:
    asked = request(tmp_path / "manifest.csv", tmp_path / "runs" / "run")
    with pytest.raises(OutputExistsError, match="unfinished") as caught:
        train(asked)
    assert f"--resume {asked.output}" in caught.value.hint
    train(replace(asked, overwrite=True, epochs=1))
    assert names(tmp_path / "runs") == ["run"]
    with pytest.raises(UsageError, match="is finished"):
        find_unfinished(str(asked.output))
    with pytest.raises(UsageError, match="no unfinished run"):
        find_unfinished(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("what", ["pixels", "label", "gone"])
def test_other_data_are_named(unfinished: Path, tmp_path: Path, what: str) -> None:
    manifest = tmp_path / "manifest.csv"
    if what == "pixels":
        Image.new("L", (16, 16), 7).save(tmp_path / "003.png")
        told = "1 of 8 scans are gone or changed, the first .*003.png; 1 of 8 scans are new"
    elif what == "label":
        manifest.write_text(manifest.read_text().replace("005.png,b", "005.png,a"))
        told = "scans are gone or changed"
    else:
        manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-2]))
        told = "scans are gone or changed"
    with pytest.raises(UsageError, match=told) as caught:
        resume_training(str(unfinished))
    assert caught.value.exit_status == 2
    assert (unfinished / CHECKPOINT).is_file()


def test_data_may_have_moved(unfinished: Path, tmp_path: Path) -> None:
    shutil.copytree(tmp_path, tmp_path.parent / "moved", dirs_exist_ok=True)
    (tmp_path / "manifest.csv").unlink()
    with pytest.raises(MedcliError, match="does not exist"):
        resume_training(str(unfinished))
    moved = str(tmp_path.parent / "moved" / "manifest.csv")
    assert resume_training(str(unfinished), inputs=[moved]).provenance["epochs_run"] == 3


def test_an_unfinished_run_may_have_moved(unfinished: Path, tmp_path: Path) -> None:
    shutil.move(tmp_path / "runs", tmp_path / "other")
    assert resume_training(str(tmp_path / "other" / "run")).path == tmp_path / "other" / "run"
    assert names(tmp_path / "other") == ["run"]
    assert not (tmp_path / "runs").exists()


def test_an_unfinished_run_may_have_another_name(unfinished: Path, tmp_path: Path) -> None:
    unfinished.rename(tmp_path / "backup")
    assert resume_training(str(tmp_path / "backup")).path == tmp_path / "runs" / "run"
    assert (tmp_path / "backup" / CHECKPOINT).is_file()  # a copy is left alone


@pytest.mark.parametrize("name", [CHECKPOINT, DATA, "state-"])
@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_a_damaged_file_is_named(unfinished: Path, name: str, how: str) -> None:
    (path,) = unfinished.glob(f"{name}*")
    content = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content if how == "flipped" else content[: len(content) // 2])
    if how == "gone" and name == CHECKPOINT:
        with pytest.raises(UsageError, match="no unfinished run"):
            find_unfinished(str(unfinished))
        return
    with pytest.raises(DamagedError, match=path.name) as caught:
        load_checkpoint(unfinished)
    assert caught.value.exit_status == 4


def test_a_newer_format_is_refused(unfinished: Path) -> None:
    path = unfinished / CHECKPOINT
    values = json.loads(path.read_text())
    del values["sha256"]
    values["format_version"] = 2
    digest = sha256_of(to_bytes(values))
    path.write_text(json.dumps({**values, "sha256": digest}))
    with pytest.raises(UsageError, match="format 2"):
        load_checkpoint(unfinished)


def test_another_machine_is_told_and_other_processes_are_refused(unfinished: Path) -> None:
    plan = load_checkpoint(unfinished).plan
    warnings: list[str] = []
    check_machine(plan, dict(plan.made_on), warnings.append)
    assert warnings == []
    threads = plan.made_on["threads"]
    check_machine(plan, {**plan.made_on, "threads": 7, "torch": "9"}, warnings.append)
    assert f"threads {threads} → 7" in warnings[0]
    with pytest.raises(UsageError, match="begun by 1 processes, these are 2"):
        check_machine(plan, {**plan.made_on, "processes": 2}, warnings.append)


def test_a_loss_that_is_no_number_keeps_the_epoch_before(
    picture_manifest: PictureManifest, tmp_path: Path, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medcli.training import loop

    def spoil(images: torch.Tensor, *_: object) -> torch.Tensor:
        return images * torch.nan if told.epochs else images

    monkeypatch.setattr(loop, "augment", spoil)
    with pytest.raises(MedcliError, match=r"epoch 2, batch 1 \(.*\.png") as caught:
        train(request(picture_manifest(8), tmp_path / "run"), told.events)
    assert str(tmp_path) in caught.value.message
    assert load_checkpoint(draft_of(tmp_path / "run")).epoch == 1


# ---- writing ----


def state(epochs: int, size: int = 1000) -> TrainState:
    line = {"epoch": 1, "epochs": 9, "train_loss": 1.0, "val_loss": 1.0, "val_auroc": None}
    line |= {"learning_rate": 0.1, "seconds": 1.0, "best": True}
    facts = {"history": [line] * epochs, "seconds": 1.0}
    return TrainState({"weights": torch.full((size,), float(epochs))}, facts)


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    plan = Plan({}, False, None, TrainConfig(), PreprocessConfig(), [], {"processes": 1})
    return Draft(tmp_path / "run", plan)


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Let the system refuse to write files of more bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_where_the_disk_is_full_the_old_state_stays(draft: Draft) -> None:
    draft.offer(state(1))
    draft.keep()
    before = {path.name: path.read_bytes() for path in draft.folder.iterdir()}
    draft.offer(state(2, size=100_000))
    with disk_of(50_000), pytest.raises(StorageError) as caught:
        draft.keep()
    assert caught.value.exit_status == 7
    assert {path.name: path.read_bytes() for path in draft.folder.iterdir()} == before
    assert load_checkpoint(draft.folder).epoch == draft.epoch == 1
    draft.keep()  # there is room again
    kept = load_checkpoint(draft.folder)
    assert kept.epoch == draft.epoch == 2
    assert torch.equal(kept.state.tensors["weights"], state(2, 100_000).tensors["weights"])
    assert len(names(draft.folder)) == 4


def test_where_nothing_could_be_saved_nothing_is_left(draft: Draft) -> None:
    draft.offer(state(1, size=100_000))
    told: list[str] = []
    with disk_of(50_000):
        draft.leave(told.append)
    assert len(told) == 1
    assert not draft.folder.exists()


def test_leaving_says_what_is_kept_where_the_last_state_cannot_be(draft: Draft) -> None:
    told: list[str] = []
    draft.offer(state(1))
    draft.keep()
    draft.offer(state(2, size=100_000))
    with disk_of(50_000):
        draft.leave(told.append)
    assert "cannot save the training" in told[0]
    assert "epoch 1 is kept" in told[1]


def test_writing_takes_at_most_a_twentieth_of_the_time(
    draft: Draft, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now)
    written: list[float] = []

    def write(self: Draft, state: TrainState) -> None:
        nonlocal now
        written.append(now)
        now += 2  # a slow disk

    monkeypatch.setattr(Draft, "_write", write)
    draft = Draft(draft.run, draft._plan)
    while now < 200:
        now += 1  # an epoch
        draft.offer(state(1))
    assert written[0] == 5
    assert all(40 <= later - earlier <= 43 for earlier, later in pairwise(written))


def test_nothing_is_written_before_there_is_an_epoch(draft: Draft) -> None:
    draft.offer(state(0))
    assert not draft.folder.exists()
    draft.keep()  # an interruption in the first epoch
    assert load_checkpoint(draft.folder).epoch == 0


def test_a_second_ctrl_c_does_not_break_off_the_saving(
    draft: Draft, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    write = Draft._write

    def interrupted(self: Draft, state: TrainState) -> None:
        signal.raise_signal(signal.SIGINT)
        write(self, state)

    monkeypatch.setattr(Draft, "_write", interrupted)
    draft.offer(state(3))
    told: list[str] = []
    draft.leave(told.append)
    assert load_checkpoint(draft.folder).epoch == 3
    assert "epoch 3 is kept" in told[-1]


def test_events_are_not_needed(unfinished: Path) -> None:
    assert resume_training(str(unfinished), TrainEvents()).path.name == "run"
    assert load_package(unfinished.parent / "run").provenance["stopped"] == "epochs"
