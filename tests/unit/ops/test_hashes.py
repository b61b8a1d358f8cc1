from __future__ import annotations

import hashlib
import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from pixloom_executor.ops.hashes import content, perceptual
from pixloom_executor.ops.image import flop
from pixloom_executor.ops.perceptual import dhash64, pdq256, pdq_coefficients, phash64
from pixloom_executor.ops.resampling import area_resampled
from tests.unit.ops.photos import PHOTOGRAPHS, bits_between, folder, image, large, pixels, reopened, with_orientation

NAMES = ("pdq256", "phash64", "dhash64")


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_content_hash_is_that_of_the_file(algorithm: Any) -> None:
    data = (folder() / "coffee.png").read_bytes()
    expected = hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
    assert content(image("coffee.png"), algorithm=algorithm) == {f"content_{algorithm}": expected}


def test_content_hash_of_changed_pixels_is_that_of_the_file_delivered() -> None:
    changed = flop(image("coffee.png"))
    expected = hashlib.blake2b(changed.encoded().data, digest_size=32).hexdigest()
    assert content(changed, algorithm="blake2b") == {"content_blake2b": expected}


def _pdq_in_plain_loops(plane: list[list[float]]) -> str:
    """PDQ as its paper writes it down: box filters, decimation, sums of cosines."""

    def box(line: list[float]) -> list[float]:
        window = -(-len(line) // 128)
        ahead = (window + 2) // 2
        return [
            math.fsum(line[max(0, at + ahead - window) : at + ahead])
            / len(line[max(0, at + ahead - window) : at + ahead])
            for at in range(len(line))
        ]

    def transposed(rows: list[list[float]]) -> list[list[float]]:
        return [list(column) for column in zip(*rows, strict=True)]

    for _ in range(2):
        plane = transposed([box(column) for column in transposed([box(row) for row in plane])])
    rows, columns = len(plane), len(plane[0])
    small = [[plane[int((i + 0.5) * rows / 64)][int((j + 0.5) * columns / 64)] for j in range(64)] for i in range(64)]
    cosine = [
        [math.sqrt(2 / 64) * math.cos(math.pi / 128 * (i + 1) * (2 * j + 1)) for j in range(64)] for i in range(16)
    ]
    half = [[math.fsum(cosine[i][k] * small[k][j] for k in range(64)) for j in range(64)] for i in range(16)]
    both = [math.fsum(half[i][k] * cosine[j][k] for k in range(64)) for i in range(16) for j in range(16)]
    median = sorted(both)[127]
    return f"{sum(1 << at for at, value in enumerate(both) if value > median):064x}"


@pytest.mark.parametrize(("rows", "columns"), [(97, 140), (64, 64), (40, 300)])
def test_pdq_equals_the_algorithm_in_plain_loops(rows: int, columns: int) -> None:
    plane = area_resampled(pixels("chelsea.png")[1].numpy(), rows, columns)
    if (rows, columns) == (64, 64):
        # 64x64 planes are hashed unfiltered; the loops filter with a box of one sample, which changes nothing.
        assert pdq256(plane)[0] == _pdq_in_plain_loops(plane.tolist())
    assert bits_between(pdq256(plane)[0], _pdq_in_plain_loops(plane.tolist())) == 0


def test_pdq_sets_half_of_the_bits() -> None:
    for name in PHOTOGRAPHS:
        assert int(perceptual(image(name))["pdq256"], 16).bit_count() == 128


@pytest.mark.parametrize(
    ("turned", "flips_rows", "flips_columns", "transposed"),
    [
        (lambda plane: plane[:, ::-1], False, True, False),
        (lambda plane: plane[::-1], True, False, False),
        (lambda plane: plane.T, False, False, True),
        (lambda plane: plane[::-1, ::-1], True, True, False),
    ],
)
def test_mirrored_planes_change_only_signs_and_places_of_coefficients(
    turned: Any, flips_rows: Any, flips_columns: Any, transposed: Any
) -> None:
    plane = area_resampled(pixels("coffee.png")[1].numpy(), 64, 64)
    _, straight = pdq_coefficients(plane)
    _, other = pdq_coefficients(np.ascontiguousarray(turned(plane)))
    odd_first = np.where(np.arange(16) % 2 == 0, -1, 1)
    expected = straight.T if transposed else straight
    if flips_rows:
        expected = expected * odd_first[:, None]
    if flips_columns:
        expected = expected * odd_first[None, :]
    assert other == pytest.approx(expected, abs=1e-5)


def test_even_picture_has_no_bits_and_no_quality() -> None:
    plane = np.full((120, 90), 77, dtype=np.uint8)
    assert pdq256(plane) == ("0" * 64, 0)
    assert phash64(plane) == dhash64(plane) == "0" * 16


def test_tiny_picture_has_no_pdq() -> None:
    assert pdq256(np.ones((4, 9), dtype=np.uint8)) == ("0" * 64, 0)


def test_dhash_of_a_ramp() -> None:
    ramp = np.arange(90, dtype=np.uint8).reshape(1, 90).repeat(80, axis=0)
    assert dhash64(ramp) == "f" * 16
    assert dhash64(ramp[:, ::-1]) == "0" * 16


@pytest.mark.parametrize("algorithm", NAMES)
@pytest.mark.parametrize("name", ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png"])
def test_copies_are_near_and_other_photographs_far(algorithm: Any, name: str) -> None:
    original = large(name, 1000, 750)
    bits = 256 if algorithm == "pdq256" else 64
    straight = perceptual(reopened(original, ".png"), algorithm=algorithm)[algorithm]
    copies = [
        reopened(original, ".jpg", Q=75),
        reopened(original, ".webp", Q=60),
        reopened(original.resize(0.4), ".jpg", Q=85),
        reopened(original.linear(0.9, 10).cast("uchar"), ".png"),
        reopened(with_orientation(original, 6), ".jpg", Q=90),
    ]
    distances = [bits_between(straight, perceptual(copy, algorithm=algorithm)[algorithm]) for copy in copies]
    assert max(distances) <= bits * 31 // 256
    others = [perceptual(image(other), algorithm=algorithm)[algorithm] for other in PHOTOGRAPHS if other != name]
    assert min(bits_between(straight, other) for other in others) > bits * 70 // 256


def test_photographs_have_good_quality() -> None:
    assert all(perceptual(image(name))["pdq_quality"] > 80 for name in PHOTOGRAPHS)


def test_all_photographs_are_told_apart() -> None:
    hashes = [perceptual(image(name))["pdq256"] for name in PHOTOGRAPHS]
    assert min(bits_between(one, other) for one, other in combinations(hashes, 2)) > 90
