"""A picture scaled as the published processors scale it: along x first, then along y.

Between the two, values are 8 bits again and bicubic overshoot is cut off, so the order shows. torchvision and Pillow
before 13 begin with x, and with them the published models were trained. Pillow 13 begins with y where that is less
work, which moves single values of a tall picture by up to 24 of 255 (noise, bicubic). Here the order is fixed: features
do not depend on the Pillow that is installed.

To torchvision's own numbers at most 2 of 255 remain, and 0.01 on average for bicubic, as the weights have other numbers
of bits (tests/encoders/test_torchvision_parity.py holds it for every family, and says more).
"""

from __future__ import annotations

from PIL import Image as Pillow

__all__ = ["scaled"]


def scaled(picture: Pillow.Image, height: int, width: int, resample: int) -> Pillow.Image:
    """The picture at another size; `resample` is Pillow's number: 2 bilinear, 3 bicubic."""
    filter_kind = Pillow.Resampling(resample)
    along = picture.resize((width, picture.height), resample=filter_kind)
    return along.resize((width, height), resample=filter_kind)
