"""Grey values of DICOM files: tables, windows, padding, inversion, frames, missing tags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.pixels.processing import apply_windowing
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian

from medcli.config import PreprocessConfig
from medcli.imaging.dicom import read_image
from medcli.imaging.display import display_slice
from medcli.imaging.intensity import apply_window, value_range
from medcli.imaging.reader import read_scan

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
TWELVE = {"BitsStored": 12, "HighBit": 11}


def item(**tags: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset


def voi_table(count: int = 4096, bits: int = 12) -> Sequence:
    """A VOI LUT that darkens: a square law."""
    data = ((np.arange(count) / (count - 1)) ** 2 * (2**bits - 1)).astype("<u2")
    table = item(LUTDescriptor=[count, 0, bits])
    table.add_new("LUTData", "OW", data.tobytes())
    return Sequence([table])


def shown_by_pydicom(path: str) -> np.ndarray:
    """What the first window of a file shows, 0 to 1."""
    dataset = pydicom.dcmread(path)
    shown = apply_windowing(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    return (shown - shown.min()) / (shown.max() - shown.min())


def shown_by_us(path: str) -> np.ndarray:
    image = read_image(path)
    assert image.window is not None
    return apply_window(image.pixels[0, ..., 0], *image.window)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", None])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("slope", [1, 0.25])
def test_a_linear_window_shows_what_pydicom_shows(
    make_dicom: Any, function: str | None, photometric: str, slope: float
) -> None:
    center = 2000 * slope + 7
    tags = {"VOILUTFunction": function, "WindowCenter": center, "WindowWidth": 350.5}
    tags |= {"RescaleSlope": slope, "RescaleIntercept": 7, "PhotometricInterpretation": photometric}
    path = make_dicom("x.dcm", RAMP, Modality="DX", **TWELVE, **tags)
    shown = shown_by_pydicom(path)
    expected = 1 - shown if photometric == "MONOCHROME1" else shown
    np.testing.assert_allclose(shown_by_us(path), expected, atol=1e-5)


def test_a_window_is_in_modality_values_where_the_slope_is_negative(make_dicom: Any) -> None:
    tags = {"RescaleSlope": -2, "RescaleIntercept": 4095, "WindowCenter": 95, "WindowWidth": 2001}
    path = make_dicom("x.dcm", RAMP, Modality="CR", **TWELVE, **tags)
    expected = np.interp(4095.0 - 2 * RAMP, [94.5 - 1000, 94.5 + 1000], [0, 1])
    np.testing.assert_allclose(shown_by_us(path), expected, atol=1e-5)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_sigmoid_window_is_shown_by_its_tangent(make_dicom: Any, photometric: str) -> None:
    tags = {"VOILUTFunction": "SIGMOID", "WindowCenter": 2000, "WindowWidth": 800}
    tags |= {"PhotometricInterpretation": photometric}
    path = make_dicom("x.dcm", RAMP, Modality="DX", **TWELVE, **tags)
    expected = 1 / (1 + np.exp(-4 * (RAMP - 2000.0) / 800))
    if photometric == "MONOCHROME1":
        expected = 1 - expected
    difference = np.abs(shown_by_us(path) - expected)
    assert difference.max() == pytest.approx(1 / (1 + np.exp(2)), abs=1e-3)
    np.testing.assert_allclose(shown_by_us(path)[31, 14:18], expected[31, 14:18], atol=1e-4)


@pytest.mark.parametrize(
    ("function", "center", "width", "window"),
    [
        ("LINEAR_EXACT", 40, 0.5, (40.5, 1.5)),
        ("LINEAR_EXACT", 40, 0, None),
        ("LINEAR", [40, -600], [0, 1500], (-600.0, 1500.0)),
        ("LINEAR", [40, 50, 60], 400, (40.0, 400.0)),
        ("LINEAR", 40, -400, None),
    ],
)
def test_the_first_window_with_a_width_counts(
    make_dicom: Any, function: str, center: Any, width: Any, window: Any
) -> None:
    path = make_dicom(VOILUTFunction=function, WindowCenter=center, WindowWidth=width)
    assert read_image(path).window == window


def test_a_voi_table_leaves_modality_values_as_they_are(make_dicom: Any) -> None:
    path = make_dicom("x.dcm", RAMP, Modality="DX", VOILUTSequence=voi_table(), **TWELVE)
    image = read_image(path)
    assert (image.unit, image.window) == ("stored", None)
    np.testing.assert_array_equal(image.pixels[0, ..., 0], RAMP)


def test_bytes_with_a_voi_table_are_not_meant_to_be_looked_at_as_they_are(make_dicom: Any) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = make_dicom("x.dcm", grey, Modality="CR", VOILUTSequence=voi_table(256, 8))
    assert read_image(path).unit == "stored"


@pytest.mark.parametrize("shape", [None, "INVERSE"])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 2048, "WindowWidth": 4096}])
def test_a_radiograph_with_a_voi_table_is_inverted_once(
    make_dicom: Any, file_case: Any, shape: str | None, window: dict[str, int]
) -> None:
    """MONOCHROME1 says so; Presentation LUT Shape INVERSE says the same again."""
    tags = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": shape} | window
    path = make_dicom("x.dcm", RAMP, Modality="DX", VOILUTSequence=voi_table(), **TWELVE, **tags)
    np.testing.assert_array_equal(read_image(path).pixels[0, ..., 0], 4095 - RAMP)
    seen_by_pydicom = 4095.0 - apply_voi_lut(RAMP, pydicom.dcmread(path))
    shown = display_slice(read_scan(file_case(path, "dicom")), 0, edge=64)
    assert np.corrcoef(shown.ravel(), seen_by_pydicom.ravel())[0, 1] > 0.9
    assert (shown.flat[0], shown.flat[-1]) == (255, 0)


@pytest.mark.parametrize(
    ("window", "unit"), [((128, 256), "display"), ((127.5, 255), "display"), ((40, 80), "stored")]
)
def test_a_window_over_all_bytes_leaves_them_meant_for_display(
    make_dicom: Any, window: tuple[float, float], unit: str
) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    tags = {"WindowCenter": window[0], "WindowWidth": window[1]}
    assert read_image(make_dicom("x.dcm", grey, Modality="US", **tags)).unit == unit


def test_modality_tables_of_big_endian_files_are_swapped(make_dicom: Any, tmp_path: Path) -> None:
    grey = np.arange(80, dtype=np.uint16).reshape(8, 10)
    dataset = pydicom.dcmread(make_dicom("x.dcm", grey, Modality="CR"))
    table = item(LUTDescriptor=[80, 0, 16], ModalityLUTType="OD")
    table.add_new("LUTData", "OW", np.arange(1000, 1080).astype(">u2").tobytes())
    dataset.ModalityLUTSequence = Sequence([table])
    dataset.PixelData = grey.astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    path = tmp_path / "big.dcm"
    pydicom.dcmwrite(path, dataset, implicit_vr=None, little_endian=None)
    np.testing.assert_array_equal(read_image(str(path)).pixels[0, ..., 0], grey + 1000)


def test_a_modality_table_of_numbers_is_read_as_one_of_bytes(make_dicom: Any) -> None:
    table = item(LUTDescriptor=[80, 0, 16], ModalityLUTType="US")
    table.add_new("LUTData", "US", list(range(1000, 1080)))
    path = make_dicom(Modality="CR", ModalityLUTSequence=Sequence([table]))
    expected = apply_modality_lut(pydicom.dcmread(path).pixel_array, pydicom.dcmread(path))
    np.testing.assert_array_equal(read_image(path).pixels[0, ..., 0], expected)


def float_file(make_dicom: Any, values: np.ndarray, **tags: Any) -> str:
    keyword = "FloatPixelData" if values.dtype == np.float32 else "DoubleFloatPixelData"
    bits = values.dtype.itemsize * 8
    blank = np.zeros(values.shape, f"u{bits // 8}")
    tags |= {"PixelData": None, "BitsStored": None, "HighBit": None, "PixelRepresentation": None}
    made: str = make_dicom("x.dcm", blank, Modality="MR", **tags, **{keyword: values.tobytes()})
    return made


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_pixels_are_rescaled_and_inverted(make_dicom: Any, dtype: type) -> None:
    values = np.array([[0.5, -1.25], [3.5, 1e6]], dtype)
    plain = read_image(float_file(make_dicom, values))
    np.testing.assert_array_equal(plain.pixels[0, ..., 0], values)
    scaled = float_file(make_dicom, values, RescaleSlope=2, RescaleIntercept=1)
    np.testing.assert_array_equal(read_image(scaled).pixels[0, ..., 0], values * 2 + 1)
    inverted = float_file(make_dicom, values, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(read_image(inverted).pixels[0, ..., 0], 1e6 - 1.25 - values)


def test_doubles_beyond_floats_are_told_of_like_infinities(make_dicom: Any) -> None:
    image = read_image(float_file(make_dicom, np.array([[1.5, 1e300], [-1e300, np.nan]])))
    assert image.pixels[0, ..., 0].tolist() == [[1.5, 1.5], [1.5, 1.5]]
    assert [warning.code for warning in image.warnings] == ["nan_replaced"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_padding_is_masked(make_dicom: Any, dtype: type) -> None:
    prefix = "Float" if dtype == np.float32 else "DoubleFloat"
    tags = {f"{prefix}PixelPaddingValue": -9e9, f"{prefix}PixelPaddingRangeLimit": -8e9}
    values = np.array([[-9e9, -8.5e9], [3.5, 2.0]], dtype)
    image = read_image(float_file(make_dicom, values, **tags))
    assert image.pixels[0, ..., 0].tolist() == [[2.0, 2.0], [3.5, 2.0]]
    assert image.padded == (2,)


@pytest.mark.parametrize(
    ("dtype", "value", "vr"), [(np.int16, 2**16 - 2000, "US"), (np.uint16, -2000, "SS")]
)
def test_padding_is_understood_in_the_wrong_sign(
    make_dicom: Any, tmp_path: Path, dtype: type, value: int, vr: str
) -> None:
    pixels = np.array([[-2000, 24], [100, 50]]).astype(dtype)
    dataset = pydicom.dcmread(make_dicom("a.dcm", pixels, Modality="MR"))
    dataset.add_new("PixelPaddingValue", vr, value)
    dataset.save_as(tmp_path / "x.dcm")
    image = read_image(str(tmp_path / "x.dcm"))
    assert image.pixels[0, ..., 0].tolist() == [[24, 24], [100, 50]]
    assert image.padded == (1,)


def test_an_image_of_padding_alone_is_left_as_it_is(make_dicom: Any) -> None:
    pixels = np.full((4, 4), -2000, np.int16)
    image = read_image(make_dicom("x.dcm", pixels, Modality="MR", PixelPaddingValue=-2000))
    assert image.padded == (0,)
    assert np.all(image.pixels == -2000)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_has_no_share_in_percentiles(
    make_dicom: Any, file_case: Any, photometric: str
) -> None:
    """As if the padding had been cut away: with NumPy, over the pixels that are left."""
    pixels = np.random.default_rng(0).normal(2000, 300, (50, 60)).astype(np.uint16)
    pixels[:, 35:] = 0
    path = make_dicom(
        "x.dcm",
        pixels,
        Modality="DX",
        PhotometricInterpretation=photometric,
        PixelPaddingValue=0,
        PixelPaddingRangeLimit=5,
        **TWELVE,
    )
    scan = read_scan(file_case(path, "dicom"))
    assert scan.padded == 50 * 25
    real = pixels[:, :35] if photometric == "MONOCHROME2" else 4095 - pixels[:, :35]
    config = PreprocessConfig()
    expected = np.percentile(real, config.percentiles)
    np.testing.assert_allclose(value_range(scan, config), expected, rtol=1e-6)


def enhanced(make_dicom: Any, modality: str, per_frame: list[dict[str, Any]], **tags: Any) -> str:
    """Frames of RAMP, each with its functional groups."""
    groups = [
        item(**{keyword: Sequence([item(**macro)]) for keyword, macro in group.items()})
        for group in per_frame
    ]
    made: str = make_dicom(
        "x.dcm",
        np.stack([RAMP] * max(2, len(groups))),
        Modality=modality,
        PerFrameFunctionalGroupsSequence=Sequence(groups) if groups else None,
        **TWELVE,
        **tags,
    )
    return made


def rescale(slope: float, intercept: float, kind: str) -> dict[str, Any]:
    return {"RescaleSlope": slope, "RescaleIntercept": intercept, "RescaleType": kind}


def test_enhanced_ct_is_in_hounsfield_units_by_frame(make_dicom: Any) -> None:
    per_frame = [
        {"PixelValueTransformationSequence": rescale(1, -1024, "HU")},
        {"PixelValueTransformationSequence": rescale(2, -1000, "HU")},
    ]
    image = read_image(enhanced(make_dicom, "CT", per_frame))
    assert image.unit == "HU"
    np.testing.assert_array_equal(image.pixels[0, ..., 0], RAMP.astype(int) - 1024)
    np.testing.assert_array_equal(image.pixels[1, ..., 0], RAMP.astype(int) * 2 - 1000)


def test_frames_take_what_all_share_where_they_say_nothing(make_dicom: Any) -> None:
    shared = item(
        PixelValueTransformationSequence=Sequence([item(**rescale(1, -1000, "HU"))]),
        FrameVOILUTSequence=Sequence([item(WindowCenter=60, WindowWidth=300)]),
    )
    own = {"PixelValueTransformationSequence": rescale(1, -24, "HU")}
    tags = {"SharedFunctionalGroupsSequence": Sequence([shared])}
    mixed = read_image(enhanced(make_dicom, "CT", [own, {}], **tags))
    assert mixed.pixels[:, 0, 0, 0].tolist() == [-24, -1000]
    alone = read_image(enhanced(make_dicom, "CT", [], **tags))
    assert alone.pixels[:, 0, 0, 0].tolist() == [-1000, -1000]
    assert mixed.window == alone.window == (60, 300)


def test_of_windows_by_frame_the_first_frame_counts(make_dicom: Any) -> None:
    windows = [{"WindowCenter": 900, "WindowWidth": 700}, {"WindowCenter": 1, "WindowWidth": 2}]
    per_frame = [{"FrameVOILUTSequence": window} for window in windows]
    assert read_image(enhanced(make_dicom, "MR", per_frame)).window == (900, 700)


def test_inversion_follows_the_rescale_of_each_frame(make_dicom: Any) -> None:
    per_frame = [{"PixelValueTransformationSequence": rescale(slope, 0, "US")} for slope in (1, 3)]
    tags = {"PhotometricInterpretation": "MONOCHROME1"}
    image = read_image(enhanced(make_dicom, "MR", per_frame, **tags))
    np.testing.assert_array_equal(image.pixels[0, ..., 0], 4095 - RAMP.astype(int))
    np.testing.assert_array_equal(image.pixels[1, ..., 0], 3 * (4095 - RAMP.astype(int)))


def test_plain_frames_share_one_rescale(make_dicom: Any) -> None:
    frames = np.stack([RAMP, RAMP[::-1]])
    path = make_dicom("x.dcm", frames, Modality="NM", RescaleSlope=3, RescaleIntercept=1, **TWELVE)
    np.testing.assert_array_equal(read_image(path).pixels[..., 0], frames.astype(int) * 3 + 1)


@pytest.mark.parametrize(
    "missing", ["PhotometricInterpretation", "PixelRepresentation", "BitsStored", "HighBit"]
)
def test_grey_without_a_tag_is_read_by_the_usual_value(make_dicom: Any, missing: str) -> None:
    grey = np.arange(80, dtype=np.uint16).reshape(8, 10)
    path = make_dicom("x.dcm", grey, Modality="MR", **{missing: None})
    np.testing.assert_array_equal(read_image(path).pixels[0, ..., 0], grey)


def test_an_overlay_of_its_own_changes_nothing(make_dicom: Any, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(make_dicom("plain.dcm", RAMP, Modality="MR", **TWELVE))
    dataset.add_new(0x60000010, "US", 64)
    dataset.add_new(0x60000011, "US", 64)
    dataset.add_new(0x60000050, "SS", [1, 1])
    dataset.add_new(0x60003000, "OW", b"\xff" * 512)
    dataset.save_as(tmp_path / "x.dcm")
    image = read_image(str(tmp_path / "x.dcm"))
    np.testing.assert_array_equal(image.pixels[0, ..., 0], RAMP)
