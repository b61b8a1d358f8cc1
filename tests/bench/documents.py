"""The workflows that are measured."""

from __future__ import annotations

from typing import Any

__all__ = ["chain", "diamond", "explicit_nodes", "fan_out", "one_node", "slow_fan_out", "three_ops", "thumbnails"]

Document = dict[str, Any]


def fan_out(tasks: int) -> Document:
    """Return a source of `tasks` empty items, one task for each, and one op after all of them."""
    return {
        "name": "bench-fan-out",
        "nodes": [
            {"id": "range", "op": "debug.range", "params": {"count": tasks}},
            {"id": "noop", "op": "debug.noop", "inputs": {"items": "range"}, "shard_size": 1, "fuse": False},
            {"id": "all", "op": "agg.manifest", "inputs": {"items": "noop"}},
        ],
        "outputs": {"all": "all"},
    }


def slow_fan_out(tasks: int, *, seconds: float) -> Document:
    """Return a source of `tasks` empty items, each a task that takes `seconds`."""
    return {
        "name": "bench-slow-fan-out",
        "nodes": [
            {"id": "range", "op": "debug.range", "params": {"count": tasks}},
            {
                "id": "sleep",
                "op": "debug.sleep",
                "inputs": {"items": "range"},
                "params": {"seconds": seconds},
                "shard_size": 1,
                "fuse": False,
            },
        ],
    }


def one_node() -> Document:
    """Return the smallest job there is."""
    return {"name": "bench-one-node", "nodes": [{"id": "only", "op": "debug.noop"}]}


def chain(length: int, *, fuse: bool) -> Document:
    """Return `length` noops behind one item."""
    nodes: list[Document] = [{"id": "n0", "op": "debug.range", "params": {"count": 1}}]
    for index in range(1, length + 1):
        node: Document = {"id": f"n{index}", "op": "debug.noop", "inputs": {"items": f"n{index - 1}"}}
        if not fuse:
            node["fuse"] = False
        nodes.append(node)
    return {"name": "bench-chain", "nodes": nodes}


def explicit_nodes(count: int) -> Document:
    """Return the fan-out as that many nodes in one document."""
    nodes: list[Document] = [{"id": "first", "op": "debug.noop"}]
    nodes += [{"id": f"n{index}", "op": "debug.noop", "dependencies": ["first"]} for index in range(count)]
    nodes.append({"id": "last", "op": "debug.noop", "dependencies": [f"n{index}" for index in range(count)]})
    return {"name": "bench-explicit-nodes", "nodes": nodes}


def diamond() -> Document:
    """Return five nodes: one, three beside each other, one."""
    return {
        "name": "bench-diamond",
        "nodes": [
            {"id": "a", "op": "debug.noop"},
            *({"id": node, "op": "debug.noop", "dependencies": ["a"]} for node in ("b", "c", "d")),
            {"id": "e", "op": "debug.noop", "dependencies": ["b", "c", "d"]},
        ],
    }


def thumbnails(folder: str, *, shard_size: int = 1) -> Document:
    """Return thumbnails of 256 px of all photos in a folder."""
    return {
        "name": "bench-thumbnails",
        "nodes": [
            {"id": "photos", "op": "source.folder", "params": {"path": folder}},
            {
                "id": "small",
                "op": "image.thumbnail",
                "inputs": {"images": "photos"},
                "params": {"width": 256},
                "shard_size": shard_size,
            },
        ],
        "outputs": {"small": "small"},
    }


def three_ops(folder: str, *, fuse: bool) -> Document:
    """Return resize, sharpen and convert behind each other."""
    nodes: list[Document] = [
        {"id": "photos", "op": "source.folder", "params": {"path": folder}},
        {"id": "small", "op": "image.resize", "inputs": {"images": "photos"}, "params": {"width": 512, "height": 512}},
        {"id": "sharp", "op": "image.sharpen", "inputs": {"images": "small"}},
        {"id": "webp", "op": "image.convert", "inputs": {"images": "sharp"}, "params": {"format": "jpeg"}},
    ]
    for node in nodes[1:]:
        node["shard_size"] = 8
        if not fuse:
            node["fuse"] = False
    return {"name": "bench-three-ops", "nodes": nodes, "outputs": {"webp": "webp"}}
