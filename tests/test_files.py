"""Folders and files appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from medcli import files
from medcli.errors import OutputExistsError, StorageError, UsageError
from medcli.files import check_file, check_parent, check_target, new_folder, write_file


def ours(folder: Path) -> bool:
    return True


def others(folder: Path) -> bool:
    return False


def fill(
    target: Path,
    text: str,
    *,
    overwrite: bool = True,
    replaceable: Callable[[Path], bool] = ours,
) -> None:
    with new_folder(target, overwrite=overwrite, replaceable=replaceable) as draft:
        (draft / "inner").mkdir()
        (draft / "inner" / "file").write_text(text)


def content(target: Path) -> str:
    return (target / "inner" / "file").read_text()


def test_a_folder_appears_when_its_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "run"
    with new_folder(target, overwrite=False, replaceable=others) as draft:
        (draft / "file").write_text("new")
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["file"]
    assert [path.name for path in target.parent.iterdir()] == ["run"]


def test_a_folder_is_replaced_and_the_old_one_goes(tmp_path: Path) -> None:
    fill(tmp_path / "run", "old")
    fill(tmp_path / "run", "new")
    assert content(tmp_path / "run") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_folders_change_names_at_once(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not files.exchange(tmp_path / "one", tmp_path / "two"):
        pytest.skip("this system cannot")
    assert (tmp_path / "one" / "two").exists()
    assert (tmp_path / "two" / "one").exists()
    assert not files.exchange(tmp_path / "one", tmp_path / "none")


@pytest.mark.parametrize("trouble", [KeyboardInterrupt(), ValueError(), OSError(28, "full")])
def test_a_broken_block_leaves_what_was_there(tmp_path: Path, trouble: BaseException) -> None:
    fill(tmp_path / "run", "old")
    expected = StorageError if isinstance(trouble, OSError) else type(trouble)
    with pytest.raises(expected):  # noqa: SIM117, PT012
        with new_folder(tmp_path / "run", overwrite=True, replaceable=ours) as draft:
            (draft / "file").write_text("half")
            raise trouble
    assert content(tmp_path / "run") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("failing", [1, 2])
def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    fill(tmp_path / "run", "old")
    rename, calls = Path.rename, []

    def refuse(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == failing:
            raise OSError(16, "Device or resource busy")
        return rename(self, target)

    monkeypatch.setattr(files, "exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StorageError, match="busy"):
        fill(tmp_path / "run", "new")
    assert content(tmp_path / "run") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_every_file_is_on_disk_before_the_folder_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def sync(descriptor: int) -> None:
        order.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def named(self: Path, target: Path) -> Path:
        order.append("renamed")
        return rename(self, target)

    monkeypatch.setattr(files.os, "fsync", sync)
    monkeypatch.setattr(Path, "rename", named)
    fill(tmp_path / "run", "new")
    draft = order[0]
    assert (
        order == [draft, "file", "inner", "renamed", tmp_path.name]
        or order
        == [
            draft,
            "inner",
            "file",
            "renamed",
            tmp_path.name,
        ]
        or set(order[: order.index("renamed")]) == {draft, "inner", "file"}
    )
    assert order[order.index("renamed") :] == ["renamed", tmp_path.name]


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    fill(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    fill(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "real") == "new"


def test_what_exists_is_kept(tmp_path: Path) -> None:
    fill(tmp_path / "run", "old")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        fill(tmp_path / "run", "new", overwrite=False)
    with pytest.raises(OutputExistsError, match="did not write"):
        fill(tmp_path / "run", "new", replaceable=others)
    assert content(tmp_path / "run") == "old"
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "empty", overwrite=False, replaceable=others)


def test_what_has_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, overwrite in (("new", False), ("new2", True), ("empty", False)):
        target = tmp_path / name
        with pytest.raises(OutputExistsError, match="meanwhile"):  # noqa: SIM117, PT012
            with new_folder(target, overwrite=overwrite, replaceable=ours) as draft:
                (draft / "mine").touch()
                fill(target, "of another")
        assert content(target) == "of another"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "new", "new2"]


def test_only_what_stood_there_at_the_start_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "run"
    fill(target, "old")
    with pytest.raises(OutputExistsError, match="meanwhile"):  # noqa: SIM117
        with new_folder(target, overwrite=True, replaceable=ours):
            fill(target, "of another")
    assert content(target) == "of another"
    with pytest.raises(OutputExistsError, match="meanwhile"):  # noqa: SIM117
        with new_folder(target, overwrite=True, replaceable=lambda at: not (at / "mine").exists()):
            (target / "mine").touch()
    assert content(target) == "of another"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "page.html"
    write_file(target, b"old")
    mask = os.umask(0o22)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~mask

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_file(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(target.parent.iterdir()) == [target]


def test_an_existing_file_is_kept_without_overwrite(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(OutputExistsError):
        check_file(tmp_path / "a", overwrite=False)
    check_file(tmp_path / "a", overwrite=True)
    with pytest.raises(OutputExistsError, match="is a folder"):
        check_file(tmp_path, overwrite=True)


def test_a_link_to_a_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "real").write_text("old")
    for name in ("real", "not yet"):
        link = tmp_path / f"link to {name}"
        link.symlink_to(Path("there") / name)
        check_file(link, overwrite=True)
        write_file(link, b"new")
        assert link.is_symlink()
        assert (tmp_path / "there" / name).read_bytes() == b"new"
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["not yet", "real"]


@pytest.mark.parametrize("through", ["name", "link"])
def test_a_pipe_is_never_replaced(tmp_path: Path, through: str) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    path = pipe if through == "name" else link
    for attempt in (lambda: check_file(path, overwrite=True), lambda: write_file(path, b"new")):
        with pytest.raises(UsageError, match="no regular file"):
            attempt()
    assert pipe.is_fifo()
    assert link.is_symlink()


def test_a_circle_of_links_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(UsageError, match="no regular file"):
        write_file(tmp_path / "a", b"new")


def test_a_place_below_a_file_or_without_permission_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(StorageError, match="is no folder"):
        check_parent(tmp_path / "a" / "b" / "c")
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)
    with pytest.raises(StorageError, match="no permission"):
        check_parent(tmp_path / "b" / "c")
