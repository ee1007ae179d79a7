"""GDCM as a decoder of pydicom's, for JPEG: lossless, and Extended with 12 bits.

Imported in worker processes only: GDCM aborts the process on some damaged files. pydicom
has a plugin for GDCM of its own, which refuses 12 bits and is loaded with pydicom itself.

References
----------
pydicom, "Pixel data decoder plugins": what `is_available` and the decoder are given
"""

from __future__ import annotations

import gdcm
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

DECODER_DEPENDENCIES = {
    syntax: ("python-gdcm",) for syntax in (JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
}


def is_available(uid: str) -> bool:
    """Whether this module decodes a transfer syntax."""
    return uid in DECODER_DEPENDENCIES


def decode_frame(data: bytes, runner: DecodeRunner) -> bytes:
    """The native pixels of one encoded frame, in the planar configuration of `runner`.

    Raises
    ------
    ValueError : GDCM does not decode it
    """
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(data)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(element)
    colours = gdcm.PhotometricInterpretation.GetPIType(str(runner.photometric_interpretation))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(colours))
    if runner.samples_per_pixel > 1:
        image.SetPlanarConfiguration(runner.planar_configuration)
    syntax = gdcm.TransferSyntax.GetTSType(str(runner.transfer_syntax))
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    image.SetPixelFormat(
        gdcm.PixelFormat(
            runner.samples_per_pixel,
            runner.bits_allocated,
            runner.bits_stored,
            runner.bits_stored - 1,
            runner.pixel_representation,
        )
    )
    pixels = image.GetBuffer()  # bytes that SWIG took for text
    if pixels is None:
        raise ValueError("GDCM cannot decode the frame")
    return bytes(pixels.encode("utf-8", "surrogateescape"))
