"""``medmnist:name``: found on the disk, else fetched once and its checksum compared."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from medcli.data import medmnist_files
from medcli.data.medmnist import CLASS_NAMES
from medcli.data.medmnist_files import CHECKSUMS, medmnist_archive
from medcli.data.sources import load_cases
from medcli.errors import ScanError, UsageError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the user and one of medcli in it, and no network."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MEDCLI_HOME", str(tmp_path / "medcli"))
    monkeypatch.setattr(medmnist_files, "ADDRESS", "http://127.0.0.1:9")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def archive(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    np.savez(path, train_images=images, train_labels=np.array([[0], [1], [0], [1]]))
    return path


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[bytes]:
    """An address that answers every request with an archive, whose bytes these are."""
    content = archive(tmp_path / "served.npz").read_bytes()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if "pneumonia" in self.path else 404)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        monkeypatch.setattr(
            medmnist_files, "ADDRESS", f"http://127.0.0.1:{serving.server_port}/files"
        )
        yield content
        serving.shutdown()


def expect(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    digest = hashlib.md5(content).hexdigest()
    monkeypatch.setitem(CHECKSUMS, "pneumoniamnist", (digest, digest, digest, digest))


def test_the_folder_of_the_authors_package_is_read_offline(home: Path) -> None:
    path = archive(home / ".medmnist" / "pneumoniamnist.npz")
    assert medmnist_archive("pneumoniamnist") == path
    assert medmnist_archive("PneumoniaMNIST@28") == path
    data = load_cases(["medmnist:pneumoniamnist"])
    assert data.classes == ("normal", "pneumonia")
    assert data.source == "data set medmnist:pneumoniamnist"


def test_a_folder_can_be_named(home: Path) -> None:
    path = archive(home / "sets" / "pathmnist_64.npz")
    assert medmnist_archive(f"{home}/sets/pathmnist@64") == path
    with pytest.raises(ScanError, match=r"pathmnist_224\.npz does not exist"):
        medmnist_archive(f"{home}/sets/pathmnist@224")


def test_what_is_nowhere_is_fetched_once(
    home: Path, server: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect(monkeypatch, server)
    notes: list[str] = []
    path = medmnist_archive("pneumoniamnist@64", notes.append)
    assert path == home / "medcli" / "cache" / "medmnist" / "pneumoniamnist_64.npz"
    assert path.read_bytes() == server
    assert "downloading" in notes[0]
    assert medmnist_archive("pneumoniamnist@64", notes.append) == path
    assert len(notes) == 1


def test_a_wrong_checksum_leaves_nothing_behind(home: Path, server: bytes) -> None:
    with pytest.raises(ScanError, match="wrong checksum"):
        medmnist_archive("pneumoniamnist")
    assert list((home / "medcli" / "cache" / "medmnist").iterdir()) == []


def test_without_a_network_the_way_out_is_named(home: Path) -> None:
    with pytest.raises(ScanError, match="not on this machine and cannot be downloaded") as refusal:
        medmnist_archive("pneumoniamnist")
    assert refusal.value.exit_status == 3
    assert "HTTPS_PROXY" in refusal.value.hint
    assert str(home / "medcli" / "cache" / "medmnist") in refusal.value.hint


def test_an_unknown_set_or_size_is_answered_with_those_there_are() -> None:
    with pytest.raises(UsageError) as refusal:
        medmnist_archive("pneumonia")
    assert "did you mean 'pneumoniamnist'?" in refusal.value.hint
    with pytest.raises(UsageError, match="nodulemnist3d has no size 224") as refusal:
        medmnist_archive("nodulemnist3d@224")
    assert refusal.value.hint == "it has 28, 64"


def test_every_set_with_class_names_can_be_named() -> None:
    assert set(CHECKSUMS) == {*CLASS_NAMES, "chestmnist"}
    digests = [digest for each in CHECKSUMS.values() for digest in each]
    assert all(len(digest) == 32 and int(digest, 16) for digest in digests)
    assert len(set(digests)) == len(digests) == 12 * 4 + 6 * 2
