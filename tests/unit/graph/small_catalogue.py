"""A small catalogue with an op of each kind, and a workflow over it."""

from __future__ import annotations

from typing import Any

from pixloom.graph import Catalogue, OpKind, OpSpec, Port, PortType


def schema(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def item_op(name: str, params: dict[str, Any] | None = None, **more: Any) -> OpSpec:
    ports = more.pop("inputs", (Port("images", PortType.IMAGE),))
    output = more.pop("output", PortType.IMAGE)
    return OpSpec(name, 1, OpKind.ITEM, output, ports, params or schema(), **more)


def small_catalogue() -> Catalogue:
    items = (Port("items", PortType.RECORD),)
    optional_items = (Port("items", PortType.RECORD, optional=True),)
    size = {"type": "integer", "minimum": 1, "maximum": 65_535}
    return Catalogue(
        [
            OpSpec(
                "source.folder",
                1,
                OpKind.SOURCE,
                PortType.IMAGE,
                (),
                schema(("path",), path={"type": "string"}, recursive={"type": "boolean", "default": True}),
            ),
            OpSpec(
                "debug.range",
                1,
                OpKind.SOURCE,
                PortType.RECORD,
                (),
                schema(("count",), count={"type": "integer", "minimum": 0, "x-pixloom-count": True}),
            ),
            item_op("check.decode", schema(level={"enum": ["header", "full"]})),
            item_op(
                "image.thumbnail",
                schema(("width",), width=size, height=size, crop={"enum": ["none", "centre"]}),
                cost_hint_s=0.02,
            ),
            item_op("image.sharpen", schema(sigma={"type": "number", "exclusiveMinimum": 0})),
            OpSpec("image.sharpen", 2, OpKind.ITEM, PortType.IMAGE, (Port("images", PortType.IMAGE),), schema()),
            item_op("infer.label", schema(), pool="gpu"),
            item_op("store.copy", schema(("dest",), dest={"type": "string"}), external_effect=True),
            item_op("debug.noop", schema(), inputs=optional_items, output=PortType.RECORD),
            item_op(
                "flow.filter",
                schema(("where",), where={"type": "string", "format": "cel"}),
                inputs=items,
                output=PortType.RECORD,
            ),
            item_op("tiles.cut", schema(), inputs=items, output=PortType.RECORD, expands=True),
            item_op(
                "image.compare",
                inputs=(Port("images", PortType.IMAGE), Port("threshold", PortType.VALUE)),
            ),
            OpSpec("dedupe.exact", 1, OpKind.COLLECTION, PortType.RECORD, items, schema(keep={"type": "string"})),
            OpSpec(
                "agg.contact_sheet",
                1,
                OpKind.COLLECTION,
                PortType.VALUE,
                (Port("images", PortType.IMAGE),),
                schema(columns=size, title={"type": "string"}),
            ),
            OpSpec("agg.manifest", 1, OpKind.COLLECTION, PortType.TABLE, items, schema()),
            OpSpec(
                "value.template",
                1,
                OpKind.VALUE,
                PortType.VALUE,
                (Port("value", PortType.VALUE, optional=True),),
                {"type": "object", "properties": {"text": {"type": "string"}}, "additionalProperties": True},
            ),
        ]
    )


def photo_catalog() -> dict[str, Any]:
    return {
        "$schema": "https://example.org/workflow.v1.schema.json",
        "name": "photo-catalog",
        "description": "Thumbnails of a folder",
        "tags": {"team": "vision"},
        "metadata": {"author": "data"},
        "params": {"source": {"type": "string"}, "width": {"type": "integer", "default": 512, "minimum": 16}},
        "nodes": [
            {"id": "photos", "op": "source.folder", "params": {"path": "${params.source}"}},
            {
                "id": "valid",
                "op": "check.decode",
                "inputs": {"images": "photos"},
                "on_error": "quarantine",
                "max_failed_ratio": 0.2,
            },
            {
                "id": "thumbs",
                "op": "image.thumbnail",
                "inputs": {"images": "valid"},
                "params": {"width": "${params.width}"},
                "retry": {"max_attempts": 4, "initial_backoff_s": 1, "multiplier": 2, "max_backoff_s": 60},
                "timeout_s": 30,
                "keep": True,
            },
            {
                "id": "sheet",
                "op": "agg.contact_sheet",
                "inputs": {"images": "thumbs"},
                "when": "nodes.valid.ok > 0",
                "dependencies": [],
            },
        ],
        "outputs": {"sheet": "sheet", "catalog": "thumbs"},
        "timeout_s": 86400,
        "max_recovery_attempts": 3,
    }
