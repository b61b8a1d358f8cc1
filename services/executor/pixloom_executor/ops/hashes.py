"""`hash.content` and `hash.perceptual`: hashes as attributes."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from pixloom.sdk.op import Image, op
from pixloom_executor.ops.luma import luma_of
from pixloom_executor.ops.perceptual import dhash64, pdq256, phash64

__all__ = ["content", "perceptual"]

# Sides to which JPEGs are decoded at least: the 64x64 plane of PDQ needs more detail than the small hashes.
_PDQ_MIN_SIDE: Final = 256
_SMALL_MIN_SIDE: Final = 64


@op("hash.content", version=1, cost_hint_s=0.001)
def content(
    image: Image,
    *,
    algorithm: Annotated[
        Literal["sha256", "blake2b", "md5"], Field(description="Digest; md5 only to compare with lists made elsewhere")
    ] = "sha256",
) -> dict[str, Any]:
    """Hash the bytes of the file.

    - **Adds:** `content_sha256`, `content_blake2b` (256 bits) or `content_md5`, in hexadecimal digits.
    - **Bytes:** those of the file the image comes from, or, when its pixels were changed, of the file it is delivered as.
    - **Source:** FIPS 180-4; RFC 7693; RFC 1321.
    """
    data = image.source_bytes if image.source_bytes is not None else image.encoded().data
    match algorithm:
        case "sha256":
            digest = hashlib.sha256(data).hexdigest()
        case "blake2b":
            digest = hashlib.blake2b(data, digest_size=32).hexdigest()
        case "md5":
            digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return {f"content_{algorithm}": digest}


@op("hash.perceptual", version=1, cost_hint_s=0.008)
def perceptual(
    image: Image,
    *,
    algorithm: Annotated[
        Literal["pdq256", "phash64", "dhash64"],
        Field(description="pdq256: most exact; phash64: DCT; dhash64: differences of brightness, fastest"),
    ] = "pdq256",
) -> dict[str, Any]:
    """Hash what the picture looks like, so that copies, re-encodings and reductions get nearly the same hash.

    - **Adds:** `pdq256` (64 hexadecimal digits) and `pdq_quality` (0 to 100, below 50 do not match), `phash64` or
      `dhash64` (16 digits). Compare by the number of differing bits: `dedupe.near`.
    - **Colour:** BT.601 luma; the profile of an RGB image is not applied.
    - **Alpha:** over white.
    - **Orientation:** respected: the hash is that of the upright picture.
    - **Tolerance:** a JPEG is hashed on a reduction to at least 256 px a side (64 px for the small hashes), which moves
      up to 10 of 256 bits; re-encoding moves a few more. Different photographs differ in about half of the bits.
    - **Source:** PDQ: Facebook, 2019; DCT hash: C. Zauner, 2010; difference hash: N. Krawetz, 2013.
    """
    match algorithm:
        case "pdq256":
            digest, quality = pdq256(luma_of(image, min_side=_PDQ_MIN_SIDE))
            return {"pdq256": digest, "pdq_quality": quality}
        case "phash64":
            return {"phash64": phash64(luma_of(image, min_side=_SMALL_MIN_SIDE))}
        case "dhash64":
            return {"dhash64": dhash64(luma_of(image, min_side=_SMALL_MIN_SIDE))}
