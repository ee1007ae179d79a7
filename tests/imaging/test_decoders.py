"""The table of decoders: complete, in step with pydicom, and honest about what is missing."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pydicom
import pytest
from pydicom import uid

from medcli.imaging import decoders
from medcli.imaging.decoders import SYNTAXES, decoder_matrix, find_syntax, is_supported


def test_every_transfer_syntax_pydicom_can_decode_has_a_decoder() -> None:
    from pydicom.pixels.decoders.base import _PIXEL_DATA_DECODERS

    known = {row.syntax for row in decoder_matrix() if row.decoder}
    assert {str(syntax) for syntax in _PIXEL_DATA_DECODERS} <= known


def test_every_syntax_stands_once_but_the_one_of_two_processes() -> None:
    uids = [row.uid for row in SYNTAXES]
    twice = {each for each in uids if uids.count(each) > 1}
    assert twice == {uid.JPEGExtended12Bit}


def test_the_matrix_tells_the_installed_version() -> None:
    rows = {row.syntax: row for row in decoder_matrix()}
    plain = rows[str(uid.ExplicitVRLittleEndian)]
    assert (plain.decoder, plain.version, plain.isolated) == ("pydicom", pydicom.__version__, False)
    lossless = rows[str(uid.JPEGLosslessSV1)]
    assert lossless.isolated
    assert lossless.version == version("python-gdcm")


def test_a_missing_decoder_comes_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "_installed", lambda _: None)
    rows = {row.name: row for row in decoder_matrix()}
    assert rows["JPEG Lossless"].decoder is None
    assert rows["JPEG Lossless"].install == "pip install python-gdcm"
    assert rows["MPEG-2 Main Profile"].install is None


def test_video_and_unknown_syntaxes_are_not_supported() -> None:
    assert not is_supported(uid.MPEG2MPML)
    assert not is_supported("1.2.3")
    assert is_supported(uid.JPEG2000)


def test_the_two_jpeg_extended_processes_have_their_own_decoders() -> None:
    eight, twelve = (find_syntax(uid.JPEGExtended12Bit, bits) for bits in (8, 12))
    assert eight is not None
    assert twelve is not None
    assert eight.libraries[0].package == "Pillow"
    assert twelve.libraries[0].package == "python-gdcm"


def test_the_table_is_read_without_loading_a_library() -> None:
    code = (
        "import sys; from medcli.imaging.decoders import decoder_matrix; decoder_matrix()\n"
        "assert not {'pydicom', 'numpy', 'PIL', 'gdcm', 'SimpleITK'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
