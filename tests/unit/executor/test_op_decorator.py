from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from pixloom.errors import InvalidError
from pixloom.graph.catalogue import OpKind, PortType
from pixloom.sdk.op import (
    Context,
    File,
    Image,
    Item,
    Items,
    Page,
    Shape,
    definition_of,
    op,
    source,
    spec_of,
)


def test_an_op_over_images_takes_pixels_on_the_port_images() -> None:
    @op("image.darken", version=3)
    def darken(image: Image, *, by: int = 10) -> Image:
        """Make it darker.

        A lot.
        """
        return image

    spec = spec_of(darken)
    assert (spec.ref, spec.kind, spec.output) == ("image.darken@3", OpKind.ITEM, PortType.IMAGE)
    assert [(port.name, port.type, port.optional) for port in spec.inputs] == [("images", PortType.IMAGE, False)]
    assert spec.summary == "Make it darker."
    assert spec.documentation.endswith("A lot.")


def test_an_op_over_records_that_may_be_none_runs_without_input_as_well() -> None:
    @op
    def look(item: Item | None = None) -> dict[str, Any]:
        return {}

    spec = spec_of(look)
    assert (spec.name, spec.kind, spec.output) == ("user.look", OpKind.ITEM, PortType.RECORD)
    assert spec.inputs[0].optional


@pytest.mark.parametrize(
    ("annotation", "output"), [(Items, PortType.RECORD), (list[Item], PortType.RECORD), (File, PortType.VALUE)]
)
def test_an_op_over_lists_of_items_is_a_collection_op(annotation: Any, output: Any) -> None:
    def gather(items: Any) -> Any: ...

    gather.__annotations__ = {"items": list[Item], "return": annotation}
    spec = spec_of(op("agg.gather")(gather))
    assert (spec.kind, spec.output, spec.inputs[0].name) == (OpKind.COLLECTION, output, "items")


@pytest.mark.parametrize(
    ("annotation", "expands"),
    [
        (list[Item], True),
        (list[Item] | None, True),
        (Item | list[Item], True),
        (Annotated[list[Item], "tiles"], True),
        (tuple[Item, ...], True),
        (Sequence[Item], True),
        (Iterable[Item], True),
        (list, True),
        (Any, True),
        (object, True),
        ("list[Item]", True),
        ("Sequence[Item] | None", True),
        (Item, False),
        (Item | None, False),
        (None, False),
        (dict, False),
        (dict[str, list[int]], False),
        (Mapping[str, Any], False),
        ("Item | dict[str, Any] | None", False),
    ],
)
def test_an_op_over_records_expands_if_its_annotation_allows_a_list(annotation: Any, expands: Any) -> None:
    def cut(item: Any): ...

    cut.__annotations__ = {"item": Item, "return": annotation}
    assert spec_of(op("tiles.cut")(cut)).expands is expands


def test_an_op_over_records_that_does_not_say_what_it_returns_may_expand() -> None:
    def cut(item: Item): ...

    assert spec_of(op("tiles.cut")(cut)).expands


def test_only_ops_over_records_expand() -> None:
    def gather(items: list[Item]) -> list[Item]:
        return items

    def look(image: Image): ...

    def add(value: int) -> list[int]:
        return [value]

    assert [spec_of(op("a.b")(function)).expands for function in (gather, look, add)] == [False] * 3


def test_several_lists_are_several_ports() -> None:
    @op("agg.join")
    def join(left: list[Item], right: list[Item] | None = None) -> Items:
        return Items()

    assert [(port.name, port.optional) for port in spec_of(join).inputs] == [("left", False), ("right", True)]


def test_an_op_over_anything_else_maps_values() -> None:
    @op("value.add")
    def add(left: int, right: int = 1, *, scale: float = 1.0) -> float:
        return (left + right) * scale

    spec = spec_of(add)
    assert (spec.kind, spec.output) == (OpKind.VALUE, PortType.VALUE)
    assert [port.type for port in spec.inputs] == [PortType.VALUE, PortType.VALUE]


def test_a_source_takes_a_cursor_and_gives_pages() -> None:
    @source("source.none")
    def none(*, count: int, cursor: str | None, ctx: Context) -> Page:
        return Page()

    definition = definition_of(none)
    assert definition.signature.shape is Shape.SOURCE
    assert definition.signature.cursor
    assert definition.signature.context == "ctx"
    assert set(definition.spec.params_schema["properties"]) == {"count"}


def test_a_source_that_returns_no_page_is_refused() -> None:
    with pytest.raises(InvalidError, match="must be `Page`"):
        source("source.odd")(lambda: None)


def test_params_become_a_json_schema_with_defaults_and_descriptions() -> None:
    @op("image.blur")
    def blur(image: Image, *, sigma: Annotated[float, Field(gt=0, le=10, description="Radius in px")] = 1.5) -> Image:
        return image

    schema = spec_of(blur).params_schema
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["additionalProperties"] is False
    sigma = schema["properties"]["sigma"]
    assert (sigma["default"], sigma["description"]) == (1.5, "Radius in px")
    assert (sigma["exclusiveMinimum"], sigma["maximum"]) == (0, 10)


def test_params_are_bound_with_all_problems_named() -> None:
    @op("image.cut")
    def cut(image: Image, *, width: int, mode: Literal["a", "b"] = "a") -> Image:
        return image

    definition = definition_of(cut)
    assert definition.bind(b'{"width": 5}') == {"width": 5, "mode": "a"}
    with pytest.raises(InvalidError) as caught:
        definition.bind(b'{"width": "5", "mode": "c", "wide": 1}')
    assert caught.value.reason == "INVALID_PARAMS"
    for name in ("width", "mode", "wide"):
        assert name in str(caught.value)


def test_a_param_may_be_called_like_a_method_of_the_model() -> None:
    @op("image.say")
    def say(image: Image, *, copy: int = 1, json: str = "x") -> Image:
        return image

    definition = definition_of(say)
    assert definition.bind(b'{"copy": 4}') == {"copy": 4, "json": "x"}
    assert set(definition.spec.params_schema["properties"]) == {"copy", "json"}


def test_the_decorated_function_stays_callable() -> None:
    @op
    def double(value: int) -> int:
        return 2 * value

    assert double(4) == 8


def test_a_signature_that_cannot_be_described_is_refused() -> None:
    def odd(*images: Image, **params: int) -> None: ...

    with pytest.raises(InvalidError, match="kwargs"):
        op("user.odd")(odd)


def test_two_images_are_refused_with_what_to_do() -> None:
    def blend(one: Image, other: Image) -> Image:
        return one

    with pytest.raises(InvalidError, match="takes one image"):
        op(blend)


def test_a_param_without_annotation_is_refused() -> None:
    def blend(one: Image, *, other=1) -> Image:
        return one

    with pytest.raises(InvalidError, match="needs a type annotation"):
        op(blend)


@pytest.mark.parametrize("options", [{"version": 0}, {"timeout_s": 0}, {"cost_hint_s": -1.0}])
def test_figures_out_of_range_are_refused(options: Any) -> None:
    def same(image: Image) -> Image:
        return image

    with pytest.raises(InvalidError, match="version must be"):
        op("image.same", **options)(same)


def test_a_function_that_is_no_op_has_no_spec() -> None:
    with pytest.raises(InvalidError, match="is no op"):
        spec_of(len)


def test_the_digest_follows_code_and_version() -> None:
    def make(version: int, function: Any) -> str:
        return spec_of(op("image.same", version=version)(function)).digest

    def one(image: Image) -> Image:
        return image

    def two(image: Image) -> Image:
        return image.with_vips(image.vips)

    assert make(1, one) == make(1, one)
    assert len({make(1, one), make(2, one), make(1, two)}) == 3


def test_importing_the_sdk_loads_no_image_library() -> None:
    code = "import sys, pixloom.sdk.op; sys.exit(bool({'pyvips', 'numpy', 'pydantic', 'pyarrow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
