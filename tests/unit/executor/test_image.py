from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import pyvips

from pixloom.sdk.op import Image, Item, Reject


def picture(width: int = 64, height: int = 48) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def jpeg(width: int = 64, height: int = 48, **options: Any) -> bytes:
    return bytes(pyvips.Image.new_from_array(picture(width, height)).write_to_buffer(".jpg", **options))


def test_an_image_from_bytes_is_described_by_its_header() -> None:
    data = jpeg()
    record = Image.from_bytes(data).record
    assert (record.format, record.width, record.height, record.size_bytes) == ("jpeg", 64, 48, len(data))


def test_new_pixels_name_no_bytes_and_keep_where_they_came_from() -> None:
    image = Image.from_bytes(jpeg(), Item(uri="cas:ab", sha256="ab", size_bytes=9, format="jpeg", key="k"))
    turned = image.with_vips(image.vips.rot90())
    assert (turned.record.width, turned.record.height) == (48, 64)
    assert (turned.record.uri, turned.record.sha256, turned.record.size_bytes) == ("", "", 0)
    assert turned.record.parents == ("ab",)
    assert (turned.record.key, turned.source_bytes) == ("k", None)
    assert image.record.uri == "cas:ab"


def test_an_unchanged_image_is_delivered_as_the_file_it_is() -> None:
    data = jpeg()
    assert Image.from_bytes(data).encoded().data is data


def test_a_requested_encoding_survives_new_pixels() -> None:
    image = Image.from_bytes(jpeg()).with_encoding("webp", Q=30)
    encoded = image.with_vips(image.vips.fliphor()).encoded()
    assert encoded.format == "webp"
    assert encoded.data[8:12] == b"WEBP"


def test_delivery_turns_upright_and_keeps_no_metadata_but_the_profile() -> None:
    vips = pyvips.Image.new_from_array(picture()).icc_import(input_profile="srgb").icc_export(output_profile="srgb")
    vips = vips.copy()
    vips.set_type(pyvips.GValue.gint_type, "orientation", 6)
    vips.set_type(pyvips.GValue.gstr_type, "exif-ifd3-GPSLatitude", "52 31 12")
    image = Image.from_bytes(vips.write_to_buffer(".jpg"))
    assert image.record.orientation == 6
    encoded = image.with_vips(image.vips.fliphor()).encoded()
    delivered = pyvips.Image.new_from_buffer(encoded.data, "")
    assert (delivered.width, delivered.height) == (48, 64) == (encoded.width, encoded.height)
    assert delivered.get_typeof("icc-profile-data")
    assert not [name for name in delivered.get_fields() if name.startswith("exif") or name == "orientation"]


def test_a_format_without_encoder_is_refused() -> None:
    with pytest.raises(Reject, match="ENCODE_ERROR"):
        Image.from_array(picture()).with_encoding("bmp").encoded()


def test_half_a_file_is_truncated_when_its_pixels_are_wanted() -> None:
    data = jpeg(400, 300)
    image = Image(Item(), load=lambda: Image.from_bytes(data[: len(data) // 2]).vips)
    with pytest.raises(Reject) as caught:
        _ = image.vips
    assert caught.value.reason == "TRUNCATED"


def test_arrays_go_in_and_come_out() -> None:
    pixels = picture()
    assert np.array_equal(Image.from_array(pixels).array(), pixels)
    assert Image.from_array(pixels[:, :, 0]).array().shape == (48, 64, 1)
