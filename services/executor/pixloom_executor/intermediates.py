"""Pixels between two stages: every bit of them, in a container of our own.

    4 bytes   magic "PXI1"
    4 bytes   length of the header, little endian
    header    JSON: width, height, bands, band format, interpretation, resolution, offsets, metadata, encoding
    pixels    rows from the top, bands interleaved, in the byte order of x86 and ARM

No image format keeps all of that: libvips' own does, but its loader is among those blocked for untrusted files. The
bytes are not compressed: they live for the time between two stages, and writing them is cheaper than packing them.
"""

from __future__ import annotations

import base64
import sys
from typing import Any, Final

import orjson

from pixloom.errors import InternalError
from pixloom.sdk.op import Encoding

__all__ = ["MEDIA_TYPE", "decode_intermediate", "encode_intermediate"]

MEDIA_TYPE: Final = "application/vnd.pixloom.pixels"
_MAGIC: Final = b"PXI1"
# Set by libvips itself from the pixels and the geometry.
_GEOMETRY: Final = frozenset(
    {"width", "height", "bands", "format", "coding", "interpretation", "xoffset", "yoffset", "xres", "yres", "filename"}
)


def encode_intermediate(vips: Any, encoding: Encoding | None) -> bytes:
    """Return pixels and metadata of a pyvips image as bytes, with the delivery that was asked for."""
    metadata = {}
    for name in vips.get_fields():
        if name not in _GEOMETRY:
            packed = _pack(vips.get(name))
            if packed is not None:
                metadata[name] = packed
    header = {
        "byteorder": sys.byteorder,
        "width": vips.width,
        "height": vips.height,
        "bands": vips.bands,
        "format": vips.format,
        "interpretation": vips.interpretation,
        "xres": vips.xres,
        "yres": vips.yres,
        "xoffset": vips.xoffset,
        "yoffset": vips.yoffset,
        "metadata": metadata,
        "encoding": None if encoding is None else [encoding.format, list(encoding.options)],
    }
    head = orjson.dumps(header)
    return b"".join((_MAGIC, len(head).to_bytes(4, "little"), head, vips.write_to_memory()))


def decode_intermediate(data: bytes) -> tuple[Any, Encoding | None]:
    """Return the pyvips image that `encode_intermediate` was given, and the delivery asked for.

    Raises:
        InternalError: if the bytes are no intermediate.
    """
    import pyvips

    if data[:4] != _MAGIC:
        raise InternalError(f"{len(data)} bytes that should be pixels between two stages are not: they are damaged")
    start = 8 + int.from_bytes(data[4:8], "little")
    header = orjson.loads(data[8:start])
    pixels = memoryview(data)[start:]
    if header["byteorder"] != sys.byteorder:
        raise InternalError("pixels between two stages were written by a machine of another byte order")
    image = pyvips.Image.new_from_memory(pixels, header["width"], header["height"], header["bands"], header["format"])
    image = image.copy(
        interpretation=header["interpretation"],
        xres=header["xres"],
        yres=header["yres"],
        xoffset=header["xoffset"],
        yoffset=header["yoffset"],
    )
    metadata = header["metadata"]
    # Setting a block of EXIF makes libvips read it and set what it finds, an orientation that is long applied as well:
    # blocks go first, and what they bring back is removed.
    for name, (kind, value) in sorted(metadata.items(), key=lambda entry: entry[1][0] != "blob"):
        image.set_type(_type_of(kind), name, _unpack(kind, value))
    for name in image.get_fields():
        if name not in _GEOMETRY and name not in metadata:
            image.remove(name)
    encoding = header["encoding"]
    return image, None if encoding is None else Encoding(encoding[0], tuple((k, v) for k, v in encoding[1]))


def _pack(value: Any) -> tuple[str, Any] | None:
    match value:
        case bool() | int():
            return "int", int(value)
        case float():
            return "double", value
        case str():
            return "str", value
        case bytes():
            return "blob", base64.b64encode(value).decode()
        case [*parts] if parts and all(type(part) is int for part in parts):
            return "ints", parts
        case [*parts] if parts and all(type(part) is float for part in parts):
            return "doubles", parts
        case _:
            return None


def _unpack(kind: str, value: Any) -> Any:
    return base64.b64decode(value) if kind == "blob" else value


def _type_of(kind: str) -> Any:
    from pyvips import GValue

    return {
        "int": GValue.gint_type,
        "double": GValue.gdouble_type,
        "str": GValue.refstr_type,
        "blob": GValue.blob_type,
        "ints": GValue.array_int_type,
        "doubles": GValue.array_double_type,
    }[kind]
