"""Pixel rules of one DICOM file, against pydicom's own functions and hand-made arrays."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from openjpeg.utils import encode_array
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, apply_modality_lut, convert_color_space
from pydicom.sequence import Sequence
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from medcli.errors import ScanError
from medcli.imaging import dicom_pixels, values
from medcli.imaging.dicom import read_image
from medcli.imaging.dicom_header import read_header
from medcli.imaging.discovery import find_scans
from medcli.imaging.reader import read_scan
from medcli.records import Case, Failure

GREY = np.arange(80, dtype=np.uint16).reshape(8, 10)


def failure(path: str) -> str:
    with pytest.raises(ScanError) as caught:
        read_image(path)
    return caught.value.code


def test_ct_values_are_hounsfield_units(make_dicom: Any) -> None:
    path = make_dicom(RescaleSlope=2, RescaleIntercept=-1024)
    image = read_image(path)
    expected = apply_modality_lut(GREY, pydicom.dcmread(path))
    assert image.unit == "HU"
    assert image.pixels.dtype == np.int16
    np.testing.assert_array_equal(image.pixels[0, ..., 0], expected)


def test_a_fractional_slope_gives_floats(make_dicom: Any) -> None:
    path = make_dicom(Modality="PT", RescaleSlope=0.37, RescaleIntercept=1.5)
    image = read_image(path)
    assert image.unit == "stored"
    expected = apply_modality_lut(GREY, pydicom.dcmread(path))
    np.testing.assert_allclose(image.pixels[0, ..., 0], expected, rtol=1e-6)


def test_ct_without_rescale_is_not_taken_for_hu(make_dicom: Any) -> None:
    assert read_image(make_dicom()).unit == "stored"


def test_ct_of_another_rescale_type_is_not_taken_for_hu(make_dicom: Any) -> None:
    path = make_dicom(RescaleSlope=1, RescaleIntercept=0, RescaleType="Z_EFF")
    assert read_image(path).unit == "stored"


def test_a_rescale_slope_of_zero_is_taken_as_one(make_dicom: Any) -> None:
    image = read_image(make_dicom(RescaleSlope=0, RescaleIntercept=-10))
    assert [warning.code for warning in image.warnings] == ["rescale_slope_zero"]
    np.testing.assert_array_equal(image.pixels[0, ..., 0], GREY.astype(int) - 10)


@pytest.mark.parametrize(
    ("pixels", "bits", "expected"),
    [
        (np.array([[0, 4095], [1, 2000]], np.uint16), 12, [[4095, 0], [4094, 2095]]),
        (np.array([[0, 255], [1, 200]], np.uint8), 8, [[255, 0], [254, 55]]),
        (np.array([[-2048, 2047], [0, 7]], np.int16), 12, [[2047, -2048], [-1, -8]]),
    ],
)
def test_monochrome1_is_inverted_within_its_bits(
    make_dicom: Any, pixels: np.ndarray, bits: int, expected: list[list[int]]
) -> None:
    path = make_dicom(
        "x.dcm",
        pixels,
        Modality="DX",
        PhotometricInterpretation="MONOCHROME1",
        BitsStored=bits,
        HighBit=bits - 1,
    )
    np.testing.assert_array_equal(read_image(path).pixels[0, ..., 0], expected)


def test_a_window_is_inverted_with_its_monochrome1_image(make_dicom: Any) -> None:
    """What the file's window shows inverted is what our window shows of our values."""
    from medcli.imaging.intensity import apply_window

    tags = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 30, "WindowWidth": 41}
    path = make_dicom(Modality="DX", PhotometricInterpretation="MONOCHROME1", **tags)
    image = read_image(path)
    assert image.window is not None
    shown = 1 - apply_window(GREY, 30, 41)
    np.testing.assert_allclose(
        apply_window(image.pixels[0, ..., 0], *image.window), shown, atol=1e-6
    )


def test_hounsfield_units_are_not_inverted(make_dicom: Any) -> None:
    tags = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    image = read_image(make_dicom(PhotometricInterpretation="MONOCHROME1", **tags))
    np.testing.assert_array_equal(image.pixels[0, ..., 0], GREY.astype(int) - 1024)


def test_padding_becomes_the_smallest_real_value(make_dicom: Any) -> None:
    pixels = np.array([[-2000, 24], [100, -2000]], np.int16)
    path = make_dicom(
        "x.dcm", pixels, RescaleSlope=1, RescaleIntercept=-1024, PixelPaddingValue=-2000
    )
    np.testing.assert_array_equal(
        read_image(path).pixels[0, ..., 0], [[-1000, -1000], [-924, -1000]]
    )


def test_a_padding_range_is_masked_in_an_inverted_image_too(make_dicom: Any) -> None:
    pixels = np.array([[0, 5], [4090, 2000]], np.uint16)
    tags = {"BitsStored": 12, "HighBit": 11, "PhotometricInterpretation": "MONOCHROME1"}
    path = make_dicom(
        "x.dcm", pixels, Modality="DX", PixelPaddingValue=0, PixelPaddingRangeLimit=10, **tags
    )
    np.testing.assert_array_equal(read_image(path).pixels[0, ..., 0], [[5, 5], [5, 2095]])


def test_junk_above_the_stored_bits_is_removed(make_dicom: Any) -> None:
    pixels = np.array([[0xF001, 0x0FFF], [0x8007, 5]], np.uint16)
    path = make_dicom("x.dcm", pixels, Modality="MR", BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_image(path).pixels[0, ..., 0], [[1, 4095], [7, 5]])


def with_table(make_dicom: Any, bits: int, first: int = 0, **tags: Any) -> str:
    """A CR whose stored values 0 to 79 become 1000 to 1079."""
    table = Dataset()
    table.LUTDescriptor = [80, first, bits]
    table.ModalityLUTType = "OD"
    table.add_new("LUTData", "OW", np.arange(1000, 1080, dtype="<u2").tobytes())
    path: str = make_dicom(Modality="CR", ModalityLUTSequence=Sequence([table]), **tags)
    return path


def test_a_modality_table_is_applied_as_pydicom_does(make_dicom: Any) -> None:
    path = with_table(make_dicom, bits=16, first=3)
    expected = apply_modality_lut(GREY, pydicom.dcmread(path))
    np.testing.assert_array_equal(read_image(path).pixels[0, ..., 0], expected)


def test_a_modality_table_of_twelve_bits_is_inverted_within_them(make_dicom: Any) -> None:
    path = with_table(make_dicom, bits=12, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_image(path).pixels[0, ..., 0], 4095 - (GREY + 1000))


def test_a_modality_table_shorter_than_it_says_is_damaged(make_dicom: Any) -> None:
    path = with_table(make_dicom, bits=16)
    data = Path(path).read_bytes()
    short, long = (b"\x02\x30US\x06\x00" + bytes([n]) + b"\x00" for n in (80, 90))
    assert short in data
    Path(path).write_bytes(data.replace(short, long))
    assert failure(path) == "damaged_header"


def test_pixels_without_a_finite_value_are_damaged(make_dicom: Any) -> None:
    assert failure(make_dicom(RescaleSlope="1e308", RescaleIntercept="1e308")) == "damaged_pixels"


def test_float_pixels_lose_their_nans(make_dicom: Any) -> None:
    floats = np.array([[0.5, np.nan], [2.5, -1.0]], np.float32)
    path = make_dicom(
        "x.dcm",
        floats.view(np.uint32),
        Modality="MR",
        PixelData=None,
        FloatPixelData=floats.tobytes(),
    )
    image = read_image(path)
    assert [warning.code for warning in image.warnings] == ["nan_replaced"]
    np.testing.assert_array_equal(image.pixels[0, ..., 0], [[0.5, -1.0], [2.5, -1.0]])


def test_a_palette_becomes_rgb(make_dicom: Any) -> None:
    rng = np.random.default_rng(0)
    tables = {
        f"{colour}PaletteColorLookupTable{part}": (
            [256, 0, 16]
            if part == "Descriptor"
            else rng.integers(0, 2**16, 256, np.uint16).tobytes()
        )
        for colour in ("Red", "Green", "Blue")
        for part in ("Descriptor", "Data")
    }
    pixels = rng.integers(0, 256, (6, 7), np.uint8)
    path = make_dicom(
        "x.dcm", pixels, Modality="US", PhotometricInterpretation="PALETTE COLOR", **tables
    )
    image = read_image(path)
    expected = apply_color_lut(pixels, pydicom.dcmread(path)) // 256
    assert image.unit == "display"
    np.testing.assert_array_equal(image.pixels[0], expected)


def test_ybr_becomes_rgb(make_dicom: Any) -> None:
    colour = np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)
    path = make_dicom("x.dcm", colour, Modality="US", PhotometricInterpretation="YBR_FULL")
    expected = convert_color_space(colour, "YBR_FULL", "RGB")
    np.testing.assert_array_equal(read_image(path).pixels[0], expected)


def test_eight_bits_without_window_or_rescale_are_meant_for_display(make_dicom: Any) -> None:
    pixels = np.arange(80, dtype=np.uint8).reshape(8, 10)
    assert read_image(make_dicom("a.dcm", pixels, Modality="US")).unit == "display"
    windowed = make_dicom("b.dcm", pixels, Modality="CR", WindowCenter=40, WindowWidth=80)
    assert read_image(windowed).unit == "stored"


@pytest.mark.parametrize(
    ("center", "width", "window"),
    [
        ([40, -600], [400, 1500], (40.0, 400.0)),
        (40, 0, None),
        (None, 400, None),
        (-0.5, 1, (-0.5, 1.0)),
    ],
)
def test_the_first_usable_window_is_kept(
    make_dicom: Any, center: Any, width: Any, window: Any
) -> None:
    assert read_image(make_dicom(WindowCenter=center, WindowWidth=width)).window == window


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_uncompressed_transfer_syntaxes(make_dicom: Any, tmp_path: Path, syntax: str) -> None:
    dataset = pydicom.dcmread(make_dicom())
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = GREY.astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    path = tmp_path / "other.dcm"
    pydicom.dcmwrite(path, dataset, implicit_vr=None, little_endian=None)
    image = read_image(str(path))
    np.testing.assert_array_equal(image.pixels[0, ..., 0], GREY)
    assert image.decoder == f"pydicom {pydicom.__version__}"


def jpeg2000(dataset: pydicom.FileDataset) -> None:
    large = np.tile(GREY, (8, 8))  # the encoder wants more than a few pixels
    dataset.Rows, dataset.Columns = large.shape
    dataset.PixelData = encapsulate([encode_array(large)])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless


@pytest.mark.parametrize(
    ("compress", "decoders"),
    [
        (lambda dataset: dataset.compress(RLELossless), {"pydicom"}),
        (lambda dataset: dataset.compress(JPEGLSLossless), {"pyjpegls"}),
        (jpeg2000, {"pylibjpeg-openjpeg", "Pillow"}),
    ],
    ids=["RLE", "JPEG-LS", "JPEG 2000"],
)
def test_compressed_pixels_are_decoded_and_the_decoder_is_named(
    make_dicom: Any, tmp_path: Path, compress: Any, decoders: set[str]
) -> None:
    dataset = pydicom.dcmread(make_dicom())
    compress(dataset)
    path = tmp_path / "compressed.dcm"
    dataset.save_as(path)
    image = read_image(str(path))
    np.testing.assert_array_equal(image.pixels[0, :8, :10, 0], GREY)
    name, version = image.decoder.split()
    assert name in decoders
    assert version[0].isdigit()


def test_a_missing_decoder_names_the_syntax_and_the_way_to_get_it(
    make_dicom: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = pydicom.dcmread(make_dicom())
    dataset.compress(JPEGLSLossless)
    dataset.save_as(tmp_path / "x.dcm")
    decoder = dicom_pixels.get_decoder(JPEGLSLossless)
    monkeypatch.setattr(decoder, "_available", {})
    with pytest.raises(ScanError, match=r"JPEG-LS.*pip install pyjpegls") as caught:
        read_image(str(tmp_path / "x.dcm"))
    assert caught.value.code == "decoder_missing"


def test_video_is_unsupported(make_dicom: Any, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(make_dicom())
    dataset.compress(RLELossless)
    dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    dataset.save_as(tmp_path / "x.dcm")
    assert failure(str(tmp_path / "x.dcm")) == "unsupported_transfer_syntax"


def test_a_decoder_panic_that_is_no_exception_is_caught(
    make_dicom: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PanicException(BaseException):
        pass

    def panic(*_: Any, **__: Any) -> None:
        raise PanicException

    monkeypatch.setattr(dicom_pixels.Decoder, "as_array", panic)
    assert failure(make_dicom()) == "decoder_crashed"


def test_control_c_is_not_taken_for_a_crash(
    make_dicom: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dicom_pixels.Decoder, "as_array", interrupt)
    with pytest.raises(KeyboardInterrupt):
        read_image(make_dicom())


def test_damaged_compressed_pixels_are_named(make_dicom: Any, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(make_dicom())
    dataset.compress(RLELossless)
    data = bytearray(dataset.PixelData)
    data[16:60] = b"\xff" * 44
    dataset.PixelData = bytes(data)
    dataset.save_as(tmp_path / "x.dcm")
    assert failure(str(tmp_path / "x.dcm")) == "damaged_pixels"


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.7, 0.9, 0.99])
def test_a_truncated_file_is_named_as_such(make_dicom: Any, kept: float) -> None:
    path = make_dicom(RescaleSlope=1, RescaleIntercept=0)
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: 330 + int((len(data) - 330) * kept)])
    assert failure(path) == "truncated"


def test_a_truncated_deflated_file_is_named_as_such(make_dicom: Any, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(make_dicom())
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = tmp_path / "x.dcm"
    dataset.save_as(path, implicit_vr=False, little_endian=True)
    path.write_bytes(path.read_bytes()[:-40])
    assert failure(str(path)) == "truncated"


def test_the_pixel_budget_is_checked_before_decoding(
    make_dicom: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "MAX_SAMPLES", 79)
    monkeypatch.setattr(dicom_pixels.Decoder, "as_array", lambda *_, **__: pytest.fail("decoded"))
    assert failure(make_dicom()) == "too_large"


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"Rows": 0}, "damaged_header"),
        ({"BitsAllocated": 40, "BitsStored": 40}, "unsupported_pixels"),
        ({"BitsStored": 20}, "damaged_header"),
        ({"PhotometricInterpretation": "ARGB"}, "unsupported_pixels"),
        ({"SamplesPerPixel": 2}, "unsupported_pixels"),
    ],
)
def test_headers_that_cannot_be_decoded_are_refused(
    make_dicom: Any, tags: dict[str, Any], code: str
) -> None:
    assert failure(make_dicom(**tags)) == code


def test_an_object_without_an_image_is_no_failure(make_dicom: Any) -> None:
    names = ("PixelData", "Rows", "Columns")
    path = make_dicom(Modality="SR", **dict.fromkeys(names))
    with pytest.raises(ScanError) as caught:
        read_header(path)
    assert caught.value.code == "no_pixels"


def test_a_file_without_preamble_and_meta_is_read(make_dicom: Any, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(make_dicom(RescaleSlope=1, RescaleIntercept=-1024))
    del dataset.file_meta
    path = tmp_path / "bare"
    dataset.save_as(path, implicit_vr=True, little_endian=True)
    assert read_header(str(path)).modality == "CT"
    assert [each.code for each in read_header(str(path)).warnings] == ["transfer_syntax_assumed"]
    np.testing.assert_array_equal(read_image(str(path)).pixels[0, ..., 0], GREY.astype(int) - 1024)


def test_only_listed_tags_leave_the_header(make_dicom: Any) -> None:
    secret = {
        "PatientName": "Doe^Jane",
        "PatientBirthDate": "19010203",
        "PatientAge": "098Y",
        "InstitutionName": "Secret Hospital",
        "SeriesDescription": "Secret words",
        "ReferringPhysicianName": "Who^Doctor",
        "AccessionNumber": "A4711",
    }
    path = make_dicom(Manufacturer="ACME", KVP="120", PatientSex="F", PatientID="P1", **secret)
    header = read_header(path)
    assert header.metadata == {"Manufacturer": "ACME", "KVP": "120", "PatientSex": "F"}
    assert not any(
        value.split("^")[0] in f"{header!r}{header.metadata}" for value in secret.values()
    )
    assert "P1" not in repr(header)


@pytest.mark.parametrize(
    ("patient", "issuer", "expected"),
    [("P1", None, "P1"), ("P1", "A", "A\\P1"), (" ", "A", None), (None, None, None)],
)
def test_patients_of_two_issuers_differ(
    make_dicom: Any, patient: str | None, issuer: str | None, expected: str | None
) -> None:
    path = make_dicom(PatientID=patient, IssuerOfPatientID=issuer)
    assert read_header(path).patient_id == expected


def test_what_pydicom_warns_of_is_told_without_its_values(make_dicom: Any) -> None:
    path = make_dicom(ImagePositionPatient=[1111.5, 2222.5, 3333.5])
    data = Path(path).read_bytes()
    assert b"1111.5" in data
    Path(path).write_bytes(data.replace(b"1111.5", b"SECRET"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        header = read_header(path)
    assert header.planes[0].position is None
    assert [warning.code for warning in header.warnings] == ["nonconformant_header"]
    assert "SECRET" not in header.warnings[0].message
    (case,) = find_scans([path])
    assert isinstance(case, Case)
    told = [warning.code for warning in read_scan(case).warnings]
    assert told.count("nonconformant_header") == 1


def test_enhanced_frames_have_their_own_rescale(make_dicom: Any) -> None:
    frames = np.stack([GREY, GREY])
    groups = []
    for slope, intercept in ((1, 0), (2, -5)):
        transformation = Dataset()
        transformation.RescaleSlope, transformation.RescaleIntercept = slope, intercept
        transformation.RescaleType = "US"
        group = Dataset()
        group.PixelValueTransformationSequence = Sequence([transformation])
        groups.append(group)
    path = make_dicom(
        "x.dcm", frames, Modality="MR", PerFrameFunctionalGroupsSequence=Sequence(groups)
    )
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels[0, ..., 0], GREY)
    np.testing.assert_array_equal(image.pixels[1, ..., 0], GREY.astype(int) * 2 - 5)


@pytest.mark.parametrize(
    "storage",
    [
        uid.RTPlanStorage,
        uid.RTStructureSetStorage,
        uid.EncapsulatedPDFStorage,
        uid.TwelveLeadECGWaveformStorage,
        uid.GrayscaleSoftcopyPresentationStateStorage,
        uid.KeyObjectSelectionDocumentStorage,
        uid.EnhancedSRStorage,
        uid.SpatialRegistrationStorage,
        uid.RawDataStorage,
    ],
    ids=lambda storage: uid.UID(storage).name,
)
def test_objects_that_hold_no_image_are_skipped_with_the_reason(
    make_dicom: Any, storage: str
) -> None:
    path = make_dicom(SOPClassUID=storage, PixelData=None, Rows=None, Columns=None)
    (found,) = find_scans([path])
    assert isinstance(found, Failure)
    assert (found.status, found.code) == ("skipped", "no_pixels")


@pytest.mark.parametrize("kept", ["Rows", "SOPClassUID"])
def test_an_image_object_without_pixels_was_cut_even_where_its_header_ends_cleanly(
    make_dicom: Any, kept: str
) -> None:
    gone = {name: None for name in ("PixelData", "Rows", "Columns", "SOPClassUID") if name != kept}
    path = make_dicom(Modality="CT", **gone)
    assert failure(path) == "truncated"


def test_a_report_with_a_damaged_value_is_skipped_and_not_called_truncated(
    make_dicom: Any,
) -> None:
    names = ("PixelData", "Rows", "Columns")
    tags = {"SpecificCharacterSet": "ISO_IR 6", "ContentDate": "20260101"}
    path = make_dicom("sr.dcm", Modality="SR", **dict.fromkeys(names), **tags)
    data = Path(path).read_bytes()
    Path(path).write_bytes(data.replace(b"ISO_IR 6", b"ISO_IRRR").replace(b"20260101", b"notadate"))
    assert failure(path) == "no_pixels"


def test_a_dose_without_an_image_ends_with_what_every_dose_has(make_dicom: Any) -> None:
    path = make_dicom(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.481.2", DoseUnits="GY", DoseSummationType="PLAN"
    )
    dataset = pydicom.dcmread(path)
    for keyword in ("PixelData", "Rows", "Columns"):
        del dataset[keyword]
    dataset.save_as(path)
    with pytest.raises(ScanError) as histograms_only:
        read_header(path)
    del dataset.DoseSummationType
    dataset.save_as(path)
    with pytest.raises(ScanError) as cut:
        read_header(path)
    assert (histograms_only.value.code, cut.value.code) == ("no_pixels", "truncated")
