"""Boxes drawn over a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

COLOURS = (
    (255, 200, 0), (0, 200, 255), (255, 90, 160), (120, 255, 90), (255, 130, 60), (190, 140, 255),
)  # fmt: skip
"""One a class, over and over; each stands out from grey and from tissue."""
_TEXT, _PAD = 13, 2  # pixels


def draw_boxes(
    picture: np.ndarray,
    boxes: Sequence[Sequence[float]],
    captions: Sequence[str],
    classes: Sequence[int],
) -> np.ndarray:
    """`picture` with a frame and a caption for each box.

    Parameters
    ----------
    picture : uint8 (h, w) or (h, w, 3)
    boxes : (x0, y0, x1, y1) in its pixels, x1 and y1 exclusive, best first
    captions, classes : one a box

    Returns
    -------
    uint8 (h, w, 3)
    """
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(picture).convert("RGB")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(_TEXT)
    # The best is drawn last, over the others.
    for box, caption, number in list(zip(boxes, captions, classes, strict=True))[::-1]:
        colour = COLOURS[number % len(COLOURS)]
        x0, y0, x1, y1 = (round(value) for value in box)
        pen.rectangle((x0 - 1, y0 - 1, x1, y1), outline=(0, 0, 0), width=1)
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour, width=2)
        width, height = round(font.getlength(caption)) + 2 * _PAD, _TEXT + 2 * _PAD
        left = max(0, min(x0, image.width - width))
        top = y0 - height if y0 >= height else min(y1, image.height - height)
        pen.rectangle((left, top, left + width, top + height), fill=colour)
        pen.text((left + _PAD, top), caption, font=font, fill=(0, 0, 0))
    return np.asarray(image)
