from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import pyvips

from pixloom.errors import InternalError
from pixloom.sdk.op import Encoding
from pixloom_executor.intermediates import decode_intermediate, encode_intermediate

FORMATS = {
    "uchar": np.uint8,
    "ushort": np.uint16,
    "short": np.int16,
    "uint": np.uint32,
    "int": np.int32,
    "float": np.float32,
    "double": np.float64,
    "complex": np.complex64,
}


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("band_format", list(FORMATS))
def test_every_bit_comes_back(band_format: Any, bands: Any) -> None:
    rng = np.random.default_rng(7)
    pixels = (rng.random((13, 17, bands)) * 200).astype(FORMATS[band_format])
    image = pyvips.Image.new_from_array(pixels)
    again, _ = decode_intermediate(encode_intermediate(image, None))
    assert (again.width, again.height, again.bands, again.format) == (17, 13, bands, band_format)
    assert again.interpretation == image.interpretation
    assert again.write_to_memory() == image.write_to_memory()


def test_metadata_and_resolution_come_back() -> None:
    image = pyvips.Image.black(8, 8, bands=3).copy(interpretation="lab", xres=3.5, yres=4.25, xoffset=-2)
    image.set_type(pyvips.GValue.gint_type, "orientation", 5)
    image.set_type(pyvips.GValue.gdouble_type, "gamma", 2.2)
    image.set_type(pyvips.GValue.gstr_type, "note", "a\u00e9")
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", bytes(range(256)))
    image.set_type(pyvips.GValue.array_int_type, "delay", [10, 20])
    again, _ = decode_intermediate(encode_intermediate(image, None))
    for name in ("orientation", "gamma", "note", "icc-profile-data", "delay"):
        assert again.get(name) == image.get(name)
    assert (again.interpretation, again.xres, again.yres, again.xoffset) == ("lab", 3.5, 4.25, -2)


def test_the_delivery_asked_for_comes_back() -> None:
    encoding = Encoding("webp", (("Q", 40), ("lossless", False)))
    _, again = decode_intermediate(encode_intermediate(pyvips.Image.black(2, 2), encoding))
    assert again == encoding


def test_other_bytes_are_refused() -> None:
    with pytest.raises(InternalError, match="damaged"):
        decode_intermediate(b"\xff\xd8\xff")


def test_an_orientation_that_was_applied_does_not_come_back_with_the_exif_block() -> None:
    image = pyvips.Image.black(8, 6).copy()
    image.set_type(pyvips.GValue.gint_type, "orientation", 6)
    upright = pyvips.Image.new_from_buffer(image.write_to_buffer(".jpg"), "").autorot()
    assert upright.get_typeof("exif-data")
    again, _ = decode_intermediate(encode_intermediate(upright, None))
    assert set(again.get_fields()) == set(upright.get_fields())
