"""Fused equals unfused, bit for bit: a chain run as one stage gives what its ops give as stages of their own."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pixloom.sdk.op import Item, definition_of, op
from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import item_pb2
from tests.unit.executor.tasks import Bench, call, file_item

Items = list[item_pb2.Item]

OPS = st.one_of(
    st.builds(lambda width: ("image.thumbnail", {"width": width}), st.integers(4, 90)),
    st.builds(lambda width: ("image.resize", {"width": width}), st.integers(4, 90)),
    st.builds(lambda sigma: ("image.sharpen", {"sigma": sigma}), st.sampled_from([0.5, 1.0, 2.5])),
    st.builds(lambda name: ("image.convert", {"format": name}), st.sampled_from(["webp", "png", "jpeg"])),
    st.sampled_from(
        [
            ("image.flip", {}),
            ("image.flop", {}),
            ("image.autorotate", {}),
            ("image.greyscale", {}),
            ("check.decode", {}),
            ("check.size", {"min_width": 20}),
            ("analyse.stats", {}),
            ("hash.content", {}),
            ("hash.perceptual", {}),
            ("debug.noop", {}),
            ("flow.filter", {"condition": "item.width > 10"}),
        ]
    ),
    st.builds(lambda into: ("test.parts", {"into": into}), st.integers(0, 3)),
)


@op("test.parts")
def parts(item: Item, *, into: int) -> list[Item]:
    """Make several items of one, the last of them from nothing."""
    named = [item.with_attributes({f"part {number}": True}) for number in range(into - 1)]
    return [*named, Item(key=f"{item.key}-last")] if into else []


@cache
def photos() -> dict[str, bytes]:
    rows, columns = np.mgrid[0:96, 0:128]
    smooth = np.stack([rows * 2, columns, (rows + columns) % 256], axis=-1).astype(np.uint8)
    noisy = smooth ^ np.random.default_rng(3).integers(0, 32, smooth.shape, dtype=np.uint8)
    photo = pyvips.Image.new_from_array(noisy)
    turned = photo.copy()
    turned.set_type(pyvips.GValue.gint_type, "orientation", 6)
    profiled = photo.icc_import(input_profile="srgb").icc_export(output_profile="p3")
    alpha = photo.bandjoin(pyvips.Image.new_from_array((columns * 2).astype(np.uint8)))
    deep = (photo.cast("ushort") * 257).cast("ushort").copy(interpretation="rgb16")
    return {
        "plain.jpg": photo.write_to_buffer(".jpg"),
        "turned.jpg": turned.write_to_buffer(".jpg"),
        "profiled.jpg": profiled.write_to_buffer(".jpg"),
        "alpha.png": alpha.write_to_buffer(".png"),
        "deep.png": deep.write_to_buffer(".png"),
        "grey.tif": photo.colourspace("b-w").write_to_buffer(".tif"),
        "lossy.webp": photo.write_to_buffer(".webp"),
        "half.jpg": photo.write_to_buffer(".jpg")[:2500],
    }


@cache
def bench() -> Bench:
    made = Bench(Path(tempfile.mkdtemp(prefix="fusion-")))
    made.registry.add(definition_of(parts))
    for name, data in photos().items():
        made.photo(name, data)
    return made


def calls_of(chain: list[tuple[str, dict[str, Any]]], kept: set[int]) -> list[pb.OpCall]:
    return [
        call(op, f"n{number}", deliver=number in kept or number == len(chain) - 1, **params)
        for number, (op, params) in enumerate(chain)
    ]


def comparable(item: item_pb2.Item) -> item_pb2.Item:
    made = item_pb2.Item()
    made.CopyFrom(item)
    made.duration_ms = 0
    return made


def run_unfused(calls: list[pb.OpCall], items: list[item_pb2.Item]) -> tuple[Items, Items, dict[str, Items]]:
    rejects: list[item_pb2.Item] = []
    kept: dict[str, Items] = {}
    for place, one in enumerate(calls):
        plain = pb.OpCall()
        plain.CopyFrom(one)
        last = place == len(calls) - 1
        # What is kept is a side output: the next stage reads the lossless pixels.
        plain.feeds_pixels = one.deliver and not last
        if not items:
            if plain.feeds_pixels:
                kept[one.node] = []
            continue
        result = bench().run([plain], *items)
        if plain.feeds_pixels:
            kept[one.node] = [item for part in result.kept for item in bench().items(part.items)]
        rejects += bench().items(result.rejects)
        items = bench().items(result.output)
    return items, sorted(rejects, key=lambda item: list(item.ordinal)), kept


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chain=st.lists(OPS, min_size=1, max_size=5), kept=st.sets(st.integers(0, 3), max_size=2))
def test_a_fused_chain_equals_its_ops_as_stages_of_their_own(chain: Any, kept: Any) -> None:
    items = [file_item(number, bench().photos / name) for number, name in enumerate(photos())]
    calls = calls_of(chain, kept)
    fused = bench().run(calls, *items)
    outputs, rejects, kept_items = run_unfused(calls, items)
    assert [comparable(item) for item in bench().items(fused.output)] == [comparable(item) for item in outputs]
    assert [comparable(item) for item in bench().items(fused.rejects)] == [comparable(item) for item in rejects]
    found = {part.node: [comparable(item) for item in bench().items(part.items)] for part in fused.kept}
    assert found == {node: [comparable(item) for item in entries] for node, entries in kept_items.items() if entries}


@settings(max_examples=30, deadline=None)
@given(
    data=st.one_of(
        st.binary(max_size=400),
        st.builds(
            lambda name, cut, noise: photos()[name][:cut] + noise,
            st.sampled_from(sorted(photos())),
            st.integers(0, 3000),
            st.binary(max_size=60),
        ),
    )
)
def test_whatever_a_file_holds_its_item_ends_ok_or_rejected(data: Any) -> None:
    path = bench().photo("anything", data)
    result = bench().run([call("image.thumbnail", width=16, deliver=True)], file_item(0, path))
    assert result.output.count + result.rejects.count == 1
