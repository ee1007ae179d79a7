"""What to do about a code of docs/codes.md, for a person who prepares data."""

from __future__ import annotations

NOTES = frozenset(
    {
        "assumed_hu",
        "many_sizes",
        "mixed_photometric",
        "nonconformant_header",
        "several_acquisitions",
        "several_folders",
        "frames_of_reference",
        "time_points",
        "transfer_syntax_assumed",
        "unknown_patient",
    }
)
"""Codes that are worth knowing and no reason to touch a scan."""

_COPY = "Copy or export it again."
_SERIES = "Export the series again, whole and by itself."

LOOK = "Look at it with medcli inspect."
"""Where nothing better is known."""

ADVICE: dict[str, str] = {
    # A scan could not be read.
    "not_found": "Correct the path or the row of the manifest, or fetch what a link stands for.",
    "unreadable": "Check the permissions of the file and the disk it lies on.",
    "no_scans": "Name a folder with images.",
    "not_an_image": "Take it out, or convert it to DICOM, NIfTI, PNG, JPEG, TIFF or BMP.",
    "no_pixels": "Leave it where it is: it is skipped.",
    "damaged_header": _COPY,
    "damaged_pixels": _COPY,
    "truncated": _COPY,
    "crc": _COPY,
    "too_large": "Split the scan or reduce its size.",
    "timeout": "Check the disk and the load of the machine, else convert it to uncompressed DICOM.",
    "decoder_missing": "Run medcli doctor: it names what to install.",
    "decoder_crashed": _COPY,
    "unsupported_transfer_syntax": "Export it as Explicit VR Little Endian.",
    "unsupported_pixels": "Convert the file with another program.",
    "unsupported_compression": "Pack the archive again, with deflate.",
    "encrypted": "Unpack the archive with its password.",
    "nested_archive": "Unpack the inner archive.",
    "mixed_sizes": "Bring the pictures to one size, or give them scan_ids of their own.",
    # A scan among others.
    "label_conflict": "Decide on one label, or leave these scans out.",
    "patient_in_two_splits": "Write a clean split with medcli data split.",
    "copy_in_two_splits": "Write a clean split with medcli data split.",
    "patient_in_two_classes": "Right where the label is about a finding; else correct the labels.",
    "duplicate": "Keep one of each.",
    "near_label_conflict": "Look at both and decide on one label.",
    "near_copy_in_two_splits": "Write a clean split with medcli data split.",
    "near_duplicate": "Keep one of each, or give them one patient_id.",
    "suspicious_label": "Look at the first of the ranking and correct what is wrong.",
    "constant": "Leave it out, or export it again.",
    "blank": "Look at it with medcli inspect --preview; leave it out if nothing is there.",
    "constant_slices": "Look at it with medcli inspect --preview: were slices lost?",
    "tiny": "Check that it is no icon or thumbnail.",
    "odd_size": "Check that it belongs here: another device, a crop, a thumbnail?",
    "burned_in_text": "Look for names before you share or train; crop or mask them.",
    "box_unusable": "Correct its row: x0 < x1, y0 < y1, in pixels of the file, inside the picture.",
    "many_sizes": "Nothing: medcli fits every scan into the size of the model.",
    "mixed_photometric": "Nothing in medcli; other programs may show these inverted.",
    "label_unclear": "Move the whole series into the folder of its class, or write a manifest.",
    "unknown_patient": "Add a column patient_id: near-copies of one patient may be split apart.",
    # What the reader noticed.
    "gap": _SERIES,
    "duplicate_slice": _SERIES,
    "uneven_spacing": "Check that it is one acquisition; resample it if distances matter.",
    "tilt": "Nothing for a classifier; correct the tilt where volumes are measured.",
    "localizer": "Nothing where it was dropped; take a scan that is nothing else out.",
    "mixed_series": _SERIES,
    "time_points": "Nothing: each time point is a scan of its own.",
    "several_acquisitions": "Nothing: each acquisition is a scan of its own.",
    "frames_of_reference": "Nothing, if the slices were scanned in one go.",
    "several_folders": "Nothing: the folders are read together.",
    "orientation_missing": "Nothing for a classifier; left and right are not certain.",
    "orientation_conflict": "Check left and right with medcli inspect --preview.",
    "no_positions": "Check the order of the slices with medcli inspect --preview.",
    "nonconformant_header": "Nothing, if medcli inspect shows what you expect.",
    "transfer_syntax_assumed": "Nothing, if medcli inspect shows what you expect.",
    "rescale_slope_zero": "Check the intensities with medcli inspect.",
    "nan_replaced": "Check how the file was made.",
    "assumed_hu": "Nothing, if it is CT.",
    "first_time_point": "Choose another with --time-point, or the column time_point of a manifest.",
    "first_channel": "Save the channel you want as a file of its own.",
    "first_frame": "Save the page you want as a file of its own.",
    "reduced_bits": "Nothing, if 8 bits a channel are enough.",
}
