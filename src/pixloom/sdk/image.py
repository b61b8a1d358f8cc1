"""An image as an op sees it: pixels that are decoded when first asked for, and the record that goes with them.

An image is immutable. An op returns the image it was given when it changed nothing, so that the record keeps the place
of its bytes; `with_vips` returns one with new pixels and `with_encoding` one that is to be delivered in another format.
Between ops pixels stay as they are in memory; a file is written only where the workflow delivers one. libvips is
imported when pixels are first opened.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixloom.sdk.encoding import Encoded, Encoding, decode_file, encode_for_delivery
from pixloom.sdk.record import Item

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Image"]


class Image:
    """Pixels with their record.

    Args:
        record: The record; its `width`, `height` and so on describe these pixels.
        source_bytes: The file the pixels come from; None when they no longer equal a file.
        load: Gives the pixels as a pyvips image when they are first asked for.
        encoding: How they are to be delivered; None means in the format of the record with default quality.
        identity: Shared by images with the same pixels and the same delivery.
    """

    __slots__ = ("_encoded", "_load", "_vips", "encoding", "identity", "record", "source_bytes")

    def __init__(
        self,
        record: Item,
        *,
        load: Callable[[], Any],
        source_bytes: bytes | None = None,
        encoding: Encoding | None = None,
        identity: object = None,
    ) -> None:
        self.identity = identity or object()
        self.record = record
        self.source_bytes = source_bytes
        self.encoding = encoding
        self._load = load
        self._vips: Any = None
        self._encoded: Encoded | None = None

    @classmethod
    def from_bytes(cls, data: bytes, record: Item | None = None) -> Image:
        """Return the image in a file's bytes; its header decides the fields of the record."""
        image = cls(record or Item(), load=lambda: decode_file(data), source_bytes=data)
        if record is None:
            image.record = _described(Item(), image.vips)
            image.record.format = str(image.vips.get("vips-loader")).removesuffix("load_buffer")
            image.record.size_bytes = len(data)
        return image

    @classmethod
    def from_file(cls, path: Path | str) -> Image:
        """Return the image in the file at `path`."""
        image = cls.from_bytes(Path(path).read_bytes())
        image.record.key = Path(path).name
        return image

    @classmethod
    def from_vips(cls, vips: Any, record: Item | None = None) -> Image:
        """Return an image of the pixels of a pyvips image, with no file behind it."""
        return cls(_described(record or Item(format="png"), vips), load=lambda: vips)

    @classmethod
    def from_array(cls, pixels: NDArray[np.generic], record: Item | None = None) -> Image:
        """Return an image of an array of shape height x width or height x width x bands."""
        import pyvips

        return cls.from_vips(pyvips.Image.new_from_array(pixels), record)

    @property
    def vips(self) -> Any:
        """The pixels as a pyvips image, whole in memory; the first frame of an animation.

        Raises:
            Reject: with DECODE_ERROR or TRUNCATED if they cannot be decoded.
        """
        if self._vips is None:
            self._vips = self._load()
        return self._vips

    def materialise(self) -> None:
        """Compute pixels that a lazy libvips pipeline has only described so far.

        Raises:
            pyvips.Error: if that fails.
        """
        self._vips = self.vips.copy_memory()

    def array(self) -> NDArray[np.generic]:
        """Return the pixels as an array of shape height x width x bands."""
        pixels: NDArray[np.generic] = self.vips.numpy()
        return pixels if pixels.ndim == 3 else pixels[:, :, None]

    def with_vips(self, vips: Any) -> Image:
        """Return an image with the pixels of `vips`; its record describes them and names no bytes yet."""
        record = _described(_without_bytes(self.record), vips)
        return Image(record, load=lambda: vips, encoding=self.encoding)

    def with_encoding(self, format: str, **options: Any) -> Image:  # noqa: A002 - the name the record uses
        """Return an image that is delivered as `format`.

        Args:
            format: jpeg, png, webp, gif, tiff or heif (AVIF).
            options: Options of the libvips saver, such as `Q`, `effort`, `lossless`; the others keep their defaults.
        """
        encoding = Encoding(format, tuple(sorted(options.items())))
        record = _without_bytes(self.record)
        record.format = format
        image = Image(record, load=lambda: self.vips, encoding=encoding)
        image._vips = self._vips
        return image

    def with_record(self, record: Item) -> Image:
        """Return an image with the same pixels and another record."""
        image = Image(
            record,
            load=lambda: self.vips,
            source_bytes=self.source_bytes,
            encoding=self.encoding,
            identity=self.identity,
        )
        image._vips, image._encoded = self._vips, self._encoded
        return image

    def encoded(self) -> Encoded:
        """Return the image as it is delivered: the file itself if it is unchanged, else encoded without metadata."""
        if self._encoded is None:
            if self.source_bytes is not None:
                self._encoded = Encoded(self.source_bytes, self.record.format)
            else:
                self._encoded = encode_for_delivery(self.vips, self.encoding or Encoding(self.record.format or "png"))
        return self._encoded


def _without_bytes(record: Item) -> Item:
    parents = record.parents
    if record.sha256 and not record.intermediate and record.sha256 not in parents:
        parents = (*parents, record.sha256)
    return replace(
        record,
        uri="",
        sha256="",
        size_bytes=0,
        intermediate=False,
        parents=parents,
        attributes=dict(record.attributes),
    )


def _described(record: Item, vips: Any) -> Item:
    record.width = vips.width
    record.height = vips.height
    record.pages = 1
    record.orientation = vips.get("orientation") if vips.get_typeof("orientation") else 1
    record.has_alpha = bool(vips.hasalpha())
    record.icc = vips.get_typeof("icc-profile-data") != 0
    return record
