from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from pixloom.errors import InvalidError
from pixloom.graph.catalogue import OpKind, PortType
from pixloom.sdk.op import definition_of
from pixloom_executor.ops import (
    analyse,
    check,
    contact_sheet,
    dedupe,
    hashes,
    image,
    image_convert,
    image_resize,
    image_thumbnail,
    manifest_file,
)

MODULES = (
    analyse, check, contact_sheet, dedupe, hashes, image, image_convert, image_resize, image_thumbnail, manifest_file,
)  # fmt: skip
OPS = {
    definition_of(function).name: definition_of(function)
    for module in MODULES
    for name in module.__all__
    if hasattr(function := getattr(module, name), "__pixloom_op__")
}
COLLECTION = {"dedupe.exact", "dedupe.near", "agg.contact_sheet", "agg.manifest"}
PARAMS = {
    "image.thumbnail": {"width": 256},
    "image.crop": {"left": 0, "top": 0, "width": 1, "height": 1},
    "image.convert": {"format": "webp"},
    "image.resize": {"width": 100, "height": None},
}


def test_every_op_is_there() -> None:
    assert set(OPS) == {
        "agg.contact_sheet", "agg.manifest", "analyse.brightness", "analyse.sharpness", "analyse.stats", "check.decode",
        "check.size", "dedupe.exact", "dedupe.near", "hash.content", "hash.perceptual", "image.autorotate",
        "image.convert", "image.crop", "image.flip", "image.flop", "image.greyscale", "image.resize", "image.sharpen",
        "image.thumbnail",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(OPS))
def test_kind_and_ports(name: str) -> None:
    spec = OPS[name].spec
    assert spec.kind is (OpKind.COLLECTION if name in COLLECTION else OpKind.ITEM)
    assert len(spec.inputs) == 1
    opens_pixels = name not in COLLECTION or name == "agg.contact_sheet"
    assert spec.inputs[0].type is (PortType.IMAGE if opens_pixels else PortType.RECORD)
    assert spec.deterministic
    assert spec.version == 1


@pytest.mark.parametrize("name", sorted(OPS))
def test_every_param_is_described_and_fits_its_own_schema(name: str) -> None:
    spec = OPS[name].spec
    jsonschema.Draft202012Validator.check_schema(spec.params_schema)
    for param, schema in spec.params_schema.get("properties", {}).items():
        assert schema.get("description"), f"{name}.{param}"
    params = PARAMS.get(name, {})
    jsonschema.validate(params, spec.params_schema)
    assert set(OPS[name].bind(json.dumps(params))) == set(OPS[name].signature.params)


@pytest.mark.parametrize("name", sorted(OPS))
def test_documentation_says_what_users_must_know(name: str) -> None:
    spec = OPS[name].spec
    assert spec.summary.endswith(".") or ":" in spec.summary or "," in spec.summary
    if name.startswith("image."):
        assert "**Colour" in spec.documentation
        assert "**Source:**" in spec.documentation
        assert "rientation" in spec.documentation


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("image.thumbnail", {}),
        ("image.thumbnail", {"width": 0}),
        ("image.thumbnail", {"width": 10, "widht": 3}),
        ("image.resize", {"background": "red"}),
        ("image.convert", {"format": "bmp"}),
        ("image.sharpen", {"sigma": 0}),
        ("dedupe.near", {"action": "delete"}),
        ("agg.contact_sheet", {"cell": 5}),
    ],
)
def test_wrong_params_are_refused(name: str, params: Any) -> None:
    with pytest.raises(InvalidError):
        OPS[name].bind(json.dumps(params))
