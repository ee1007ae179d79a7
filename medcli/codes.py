"""The closed list of codes that tell a program what is wrong with a scan.

`ERRORS` are the codes of `medcli.errors.ScanError` and `medcli.records.Failure`,
`WARNINGS` those of `medcli.records.ScanWarning`, `FINDINGS` those that `medcli data check`
adds to a scan as part of a data set, `PROBLEMS` those of `medcli index verify` and `audit`.
docs/codes.md shows the lists; tests hold the lists, the document and the code together.
"""

from __future__ import annotations

ERRORS = {
    "not_found": "There is no such file or folder, a link leads nowhere, or a pattern matches "
    "nothing.",
    "unreadable": "The operating system refuses to read the file.",
    "no_scans": "A folder in which no scan was found.",
    "not_an_image": "Not an image of a format medcli reads. Where a folder is searched it is "
    "skipped, unless it is a file whose name ends as that of an image.",
    "no_pixels": "A DICOM object without an image (report, plan, structure set, directory …).",
    "damaged_header": "The header cannot be parsed or contradicts itself.",
    "damaged_pixels": "The pixel data cannot be decoded, contradict the header or hold no finite "
    "value.",
    "truncated": "The file ends before its data do.",
    "crc": "A checksum inside the file does not match: the data were damaged.",
    "too_large": "More pixels, header or inflated bytes than allowed; checked before decoding.",
    "timeout": "Reading the scan took longer than the time limit.",
    "decoder_missing": "The transfer syntax needs a decoder that is not installed.",
    "decoder_crashed": "The decoder broke down on damaged pixel data.",
    "unsupported_transfer_syntax": "A DICOM transfer syntax medcli does not read.",
    "unsupported_pixels": "A number type, channel count or layout medcli does not read.",
    "encrypted": "A member of an archive that is encrypted.",
    "unsupported_compression": "A member of an archive in a compression that medcli does not read.",
    "nested_archive": "An archive inside an archive; skipped.",
    "mixed_sizes": "The pictures of one scan differ in size.",
    "bad_vector": "The model gave a vector that is NaN, zero or not of unit length.",
    "bad_name": "A name or path that a gallery cannot store.",
    "source_changed": "The files of a stored scan have other pixels now, or are not known.",
    "duplicate_scan_id": "Another scan of the same command has this identifier, with other pixels.",
}

WARNINGS = {
    "gap": "Slices are missing: a step of more than one and a half times the spacing.",
    "duplicate_slice": "Several slices at one position; the first is kept.",
    "uneven_spacing": "The steps between slices differ; the median is taken as spacing.",
    "tilt": "The slices are sheared against their normal (gantry tilt).",
    "localizer": "Localizer (scout) images; dropped where the series has other slices.",
    "mixed_series": "Slices of another series, orientation, size or pixel spacing; dropped.",
    "time_points": "A series of time points: each is a scan; at one position they are a stack.",
    "several_acquisitions": "A series whose positions repeat (echoes …): each is a scan.",
    "several_folders": "The slices of one series lie in several folders; read as one scan.",
    "frames_of_reference": "Each slice names a frame of reference of its own; read as one scan.",
    "no_positions": "The slices carry no positions; they stand in the order of InstanceNumber.",
    "nonconformant_header": "The header breaks the DICOM standard; it was read as far as possible.",
    "transfer_syntax_assumed": "The header does not name its transfer syntax; it was guessed.",
    "rescale_slope_zero": "The rescale slope is 0; it was taken as 1.",
    "nan_replaced": "Voxels that are not finite; replaced by the smallest finite value.",
    "constant": "Every pixel has one value.",
    "assumed_hu": "The format has no modality; the values look like CT in Hounsfield units.",
    "orientation_missing": "No orientation is given; the axes are taken as left, back, head.",
    "orientation_conflict": "The sform and the qform differ, or one of them is unusable.",
    "first_time_point": "A file with several time points; the first was read.",
    "first_channel": "A file with several values per voxel that are no colour; the first was read.",
    "first_frame": "An animated or multi-page picture; the first frame was read.",
    "reduced_bits": "More bits per colour channel than can be kept; the upper ones are.",
    "whole_ct": "A CT larger than the region that the model answers about; name the region.",
    "index_rebuilt": "The search index was absent, stale or damaged; rebuilt from the catalogue.",
    "index_not_saved": "The rebuilt search index could not be saved; it serves this command only.",
    "no_groups": "The gallery knows no patient, or no study, of its scans; each is its own group.",
    "no_timeline": "Time is not known for all scans, or the patient of the query is not.",
    "approximate_search": "The search may have missed scans; its recall was measured (index tune).",
    "fewer_hits": "The gallery holds fewer scans that may answer than were asked for.",
    "one_class": "The scans evaluated show one class only; AUROC is undefined.",
    "missing_class": "A class has no scan among those evaluated; means leave it out.",
    "label_unclear": "The files lie in the folders of several classes; the scan has no label.",
    "unknown_patient": "Scans without a patient; each counts as a patient of its own.",
    "resamples_skipped": "Bootstrap resamples with one class only were left out of an interval.",
}

FINDINGS = {
    "label_conflict": "The same pixels under another label.",
    "patient_in_two_splits": "The patient has scans in another split.",
    "copy_in_two_splits": "The same pixels in another split.",
    "patient_in_two_classes": "The patient has scans of another class.",
    "duplicate": "The same pixels as another scan.",
    "near_label_conflict": "A near-identical picture under another label.",
    "near_copy_in_two_splits": "A near-identical picture in another split.",
    "near_duplicate": "A near-identical picture of another or an unknown patient.",
    "suspicious_label": "The picture looks like one of another class.",
    "blank": "Fewer than one pixel in a thousand differs from the background.",
    "constant_slices": "Slices in which every pixel has one value.",
    "tiny": "Fewer than 16 rows or columns.",
    "odd_size": "Another size than nine in ten of the scans.",
    "box_unusable": "A box is inverted, empty, no four numbers, or not inside its picture.",
    "burned_in_text": "Text may stand in the pixels: the header says so, or it is a screen shot.",
    "many_sizes": "Scans of several sizes, none of which is the rule.",
    "mixed_photometric": "MONOCHROME1 among MONOCHROME2: stored inverted, read as the others.",
}

PROBLEMS = {
    "catalogue_damaged": "The catalogue cannot be read, or SQLite finds its tables broken.",
    "row_damaged": "The fields or vectors of a scan do not match their checksum.",
    "slice_damaged": "A slice of a scan does not match its checksum, or is missing.",
    "source_damaged": "What is known of a scan's files does not match its checksum.",
    "counters_wrong": "The counters of the catalogue are not those of its rows.",
    "generation_lost": "The search index knows later writes than the catalogue: some are lost.",
    "index_damaged": "The search index does not match its checksum; the next search rebuilds it.",
    "key_damaged": "The key of the patient hashes is lost or another one.",
    "model_damaged": "The copy of the model package is incomplete, altered, or another one.",
    "canary_damaged": "A stored answer to a picture that never changes fails its checksum.",
    "engine_changed": "The model answers a picture that never changes otherwise than at build.",
    "pixels_changed": "Unchanged files are read to other pixels than when they were stored.",
    "vector_changed": "Made anew from unchanged files, the vector of a scan is another one.",
    "near_duplicate": "Two scans of different or unknown patients are nearly the same.",
    "near_label_conflict": "Two scans that are nearly the same have different labels.",
    "near_copy_in_two_splits": "Two scans that are nearly the same are in two splits.",
    "patient_in_two_splits": "The patient has scans in another split.",
}
