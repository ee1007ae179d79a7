"""How a file means its values to be shown: windows, sigmoids and tables, frame by frame."""

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
from medcli.imaging.display import display_slice, display_slices
from medcli.imaging.intensity import apply_window
from medcli.imaging.preprocess import Preprocessor
from medcli.imaging.reader import read_scan
from medcli.records import Scan

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
TWELVE = {"BitsStored": 12, "HighBit": 11, "Modality": "DX"}


def item(**tags: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset


def table(count: int = 4096, bits: int = 12, first: int = 0, power: float = 2.0) -> Sequence:
    """A VOI LUT by a power law."""
    data = (np.arange(count) / (count - 1)) ** power * (2**bits - 1)
    entry = item()
    entry.add_new("LUTDescriptor", "SS" if first < 0 else "US", [count, first, bits])
    entry.add_new("LUTData", "OW", data.astype("<u2").tobytes())
    return Sequence([entry])


def scan_at(path: str, file_case: Any) -> Scan:
    return read_scan(file_case(path, "dicom"))


def by_pydicom(path: str, bits: int = 12) -> np.ndarray:
    """0 to 1 as `apply_voi_lut` has it, which takes a table before a window."""
    dataset = pydicom.dcmread(path)
    values = apply_modality_lut(dataset.pixel_array, dataset)
    shown = apply_voi_lut(values.astype(np.int32), dataset)
    if "VOILUTSequence" in dataset:
        return shown / (2**bits - 1)
    return (shown - shown.min()) / (shown.max() - shown.min())


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("count", "bits", "first"), [(4096, 12, 0), (4096, 16, 0), (512, 10, 1000), (256, 8, 3900)]
)
def test_a_table_shows_what_pydicom_shows(
    make_dicom: Any, file_case: Any, photometric: str, count: int, bits: int, first: int
) -> None:
    tags = {"VOILUTSequence": table(count, bits, first), "PhotometricInterpretation": photometric}
    path = make_dicom("x.dcm", RAMP, **TWELVE, **tags)
    expected = by_pydicom(path, bits)
    if photometric == "MONOCHROME1":
        expected = 1 - expected
    shown = display_slice(scan_at(path, file_case), 0, edge=64)
    assert np.abs(shown - 255 * expected).max() <= 0.501


def test_a_table_begins_below_zero_where_values_do(make_dicom: Any, file_case: Any) -> None:
    tags = {"RescaleSlope": 1, "RescaleIntercept": -1024, "VOILUTSequence": table(first=-1024)}
    path = make_dicom("x.dcm", RAMP, **TWELVE, **tags)
    shown = display_slice(scan_at(path, file_case), 0, edge=64)
    assert np.abs(shown - 255 * by_pydicom(path)).max() <= 0.501


def test_of_a_table_and_a_window_the_table_is_shown(make_dicom: Any, file_case: Any) -> None:
    window = {"WindowCenter": 100, "WindowWidth": 50}
    path = make_dicom("x.dcm", RAMP, VOILUTSequence=table(), **TWELVE, **window)
    scan = scan_at(path, file_case)
    assert scan.window == (100.0, 50.0)
    shown = display_slice(scan, 0, edge=64)
    assert np.abs(shown - 255 * by_pydicom(path)).max() <= 0.501


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", "NONSENSE"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_window_shows_what_pydicom_shows(
    make_dicom: Any, file_case: Any, function: str, photometric: str
) -> None:
    tags = {"VOILUTFunction": function, "WindowCenter": 2000, "WindowWidth": 350.5}
    path = make_dicom("x.dcm", RAMP, PhotometricInterpretation=photometric, **TWELVE, **tags)
    dataset = pydicom.dcmread(path)
    if function == "NONSENSE":  # pydicom raises; here it counts as LINEAR, the default
        del dataset.VOILUTFunction
    expected = apply_windowing(dataset.pixel_array, dataset) / 4095
    if photometric == "MONOCHROME1":
        expected = 1 - expected
    shown = display_slice(scan_at(path, file_case), 0, edge=64)
    assert np.abs(shown - 255 * expected).max() <= 0.51


def test_tables_of_big_endian_files_are_swapped(
    make_dicom: Any, file_case: Any, tmp_path: Path
) -> None:
    dataset = pydicom.dcmread(make_dicom("x.dcm", RAMP, VOILUTSequence=table(), **TWELVE))
    expected = apply_voi_lut(RAMP, dataset) / 4095
    dataset.PixelData = RAMP.astype(">u2").tobytes()
    dataset.VOILUTSequence[0].LUTData = (
        np.frombuffer(dataset.VOILUTSequence[0].LUTData, "<u2").astype(">u2").tobytes()
    )
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(tmp_path / "big.dcm", dataset, implicit_vr=None, little_endian=None)
    shown = display_slice(scan_at(str(tmp_path / "big.dcm"), file_case), 0, edge=64)
    assert np.abs(shown - 255 * expected).max() <= 0.501


def test_entries_larger_than_their_bits_are_not_cut(make_dicom: Any, file_case: Any) -> None:
    """Descriptors are known to understate the bits: the largest entry is white then."""
    sequence = table(bits=12)
    sequence[0].LUTDescriptor = [4096, 0, 8]
    shown = display_slice(
        scan_at(make_dicom("x.dcm", RAMP, VOILUTSequence=sequence, **TWELVE), file_case), 0, edge=64
    )
    assert np.abs(shown - 255 * (RAMP / 4095.0) ** 2).max() <= 0.6


@pytest.mark.parametrize("data", [b"\1\0", None])
def test_a_damaged_table_costs_a_warning_and_no_image(
    make_dicom: Any, file_case: Any, codes: Any, data: bytes | None
) -> None:
    sequence = table()
    if data is None:
        del sequence[0].LUTData
    else:
        sequence[0].LUTData = data
    window = {"WindowCenter": 2000, "WindowWidth": 1000}
    path = make_dicom("x.dcm", RAMP, VOILUTSequence=sequence, **TWELVE, **window)
    scan = scan_at(path, file_case)
    assert codes(scan) == ["nonconformant_header"]
    np.testing.assert_array_equal(scan.pixels[0, ..., 0], RAMP)
    expected = np.rint(apply_window(RAMP, 2000, 1000) * 255)
    np.testing.assert_array_equal(display_slice(scan, 0, edge=64), expected)


@pytest.mark.parametrize(("center", "width"), [("1E300", "1E301"), ("-1E39", "2E39")])
def test_a_window_beyond_all_values_is_none(
    make_dicom: Any, file_case: Any, center: str, width: str
) -> None:
    scan = scan_at(make_dicom(WindowCenter=center, WindowWidth=width), file_case)
    assert (scan.window, scan.tones) == (None, ())
    assert display_slice(scan, 0).max() == 255


def frames_of(macros: list[Dataset | None], **tags: Any) -> dict[str, Any]:
    """Tags of an enhanced object with a Frame VOI LUT by frame."""
    groups = [
        item() if macro is None else item(FrameVOILUTSequence=Sequence([macro])) for macro in macros
    ]
    shared = item(**tags)
    return {
        "PerFrameFunctionalGroupsSequence": Sequence(groups),
        "SharedFunctionalGroupsSequence": Sequence([shared]),
    }


def window(center: float, width: float, **tags: Any) -> Dataset:
    return item(WindowCenter=center, WindowWidth=width, **tags)


def test_each_frame_of_an_enhanced_object_is_shown_by_its_own(
    make_dicom: Any, file_case: Any
) -> None:
    frames = np.stack([RAMP] * 4)
    macros = [
        window(1000, 500),
        window(3000, 200, VOILUTFunction="LINEAR_EXACT"),
        item(VOILUTSequence=table()),
        None,
    ]
    tags = TWELVE | {"Modality": "XA"} | frames_of(macros)
    scan = scan_at(make_dicom("x.dcm", frames, **tags), file_case)
    assert [each.function if each else None for each in scan.tones] == [
        "LINEAR", "LINEAR_EXACT", "LUT", None,
    ]  # fmt: skip
    low, high = np.percentile(frames, (0.5, 99.5))
    expected = [
        apply_window(RAMP, 1000, 500),
        np.clip((RAMP - 2900.0) / 200, 0, 1),
        (RAMP / 4095.0) ** 2,
        np.clip((RAMP - low) / (high - low), 0, 1),
    ]
    for shown, level in zip(display_slices(scan, range(4), edge=64), expected, strict=True):
        assert np.abs(shown - 255 * level).max() <= 0.6
    for shown in display_slices(scan, range(4), edge=64, window=(2000, 100)):
        np.testing.assert_array_equal(shown, np.rint(apply_window(RAMP, 2000, 100) * 255))


def test_frames_with_equal_windows_share_one(make_dicom: Any, file_case: Any) -> None:
    macros: list[Dataset | None] = [window(1000, 500) for _ in range(3)]
    tags = TWELVE | frames_of(macros)
    scan = scan_at(make_dicom("x.dcm", np.stack([RAMP] * 3), **tags), file_case)
    assert len(scan.tones) == 1


def test_inversion_mirrors_the_window_of_each_frame(make_dicom: Any, file_case: Any) -> None:
    """Each frame of MONOCHROME1 is mirrored in its own range of values."""
    groups = [
        item(
            FrameVOILUTSequence=Sequence([window(2000 * slope, 400)]),
            PixelValueTransformationSequence=Sequence(
                [item(RescaleSlope=slope, RescaleIntercept=0, RescaleType="US")]
            ),
        )
        for slope in (1, 2)
    ]
    tags = TWELVE | {"PerFrameFunctionalGroupsSequence": Sequence(groups)}
    tags |= {"PhotometricInterpretation": "MONOCHROME1"}
    scan = scan_at(make_dicom("x.dcm", np.stack([RAMP] * 2), **tags), file_case)
    for slope, shown in zip((1, 2), display_slices(scan, range(2), edge=64), strict=True):
        expected = 1 - apply_window(RAMP * slope, 2000 * slope, 400)
        assert np.abs(shown - 255 * expected).max() <= 0.501


def test_each_file_of_a_series_is_shown_by_its_own(
    tmp_path: Path, write_ct_series: Any, dicom_case: Any, hu_volume: Any
) -> None:
    """Slices stand in the order of their positions, and so do their windows."""
    hu = hu_volume(2, 64, 64)
    paths = write_ct_series(tmp_path, hu, order=[1, 0], spacing=(2.5, 1.0, 1.0))
    for path, center in zip(paths, (300, -600), strict=True):  # slice 1, slice 0
        dataset = pydicom.dcmread(path)
        dataset.WindowCenter, dataset.WindowWidth = center, 400
        dataset.save_as(path)
    scan = read_scan(dicom_case(paths))
    for index, center in ((0, -600), (1, 300)):
        expected = np.rint(apply_window(hu[index], center, 400) * 255)
        np.testing.assert_array_equal(display_slice(scan, index, edge=64), expected)


def test_models_see_the_same_with_and_without_a_table(make_dicom: Any, file_case: Any) -> None:
    plain = scan_at(make_dicom("a.dcm", RAMP, **TWELVE), file_case)
    with_table = scan_at(make_dicom("b.dcm", RAMP, VOILUTSequence=table(), **TWELVE), file_case)
    preprocessor = Preprocessor(PreprocessConfig(size=32))
    np.testing.assert_array_equal(
        preprocessor.model_input(plain), preprocessor.model_input(with_table)
    )


def test_tones_survive_the_way_out_of_a_worker(make_dicom: Any, file_case: Any) -> None:
    import io

    from medcli.imaging.isolation.wire import receive, send

    scan = scan_at(make_dicom("x.dcm", RAMP, VOILUTSequence=table(), **TWELVE), file_case)
    stream = io.BytesIO()
    send(stream, scan)
    stream.seek(0)
    (back,) = receive(stream).tones
    np.testing.assert_array_equal(back.levels, scan.tones[0].levels)
    assert back.function == "LUT"


def test_a_frame_without_any_of_it_has_none(make_dicom: Any) -> None:
    assert read_image(make_dicom("x.dcm", RAMP, **TWELVE)).tones == ()
