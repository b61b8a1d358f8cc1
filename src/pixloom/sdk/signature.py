"""From the signature of a function to the kind and ports of an op.

| first positional parameter | return annotation | kind | sees |
|---|---|---|---|
| `Image` | `Image`, `dict`, `tuple[Image, dict]` | item | pixels |
| `Item` or `Item or None` | `Item`, `dict`, `None`, `list[Item]` | item | record |
| `list[Item]` (several make several ports) | `Items`, `list[Item]`, `File`, JSON | collection | records, bytes on demand |
| none | `Page` | source | a cursor |
| none, or anything else | JSON, `File` | value | JSON values |

An item op whose parameter allows `None` runs without input as well: once, giving a value.

An op over records whose return annotation allows a list *expands*: it may make several items of one. So may one that
says nothing of what it returns.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable, MutableSequence, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pixloom.errors import InvalidError
from pixloom.graph.catalogue import OpKind, Port, PortType
from pixloom.sdk.context import Context
from pixloom.sdk.image import Image
from pixloom.sdk.record import Dropped, File, Item, Items, Page

__all__ = ["Shape", "Signature", "derive_signature"]


class Shape(Enum):
    """How the runner calls an op."""

    IMAGE = "image"  # one image at a time
    RECORD = "record"  # one record at a time
    COLLECTION = "collection"  # all records of each port at once
    VALUE = "value"  # JSON values
    SOURCE = "source"  # a cursor


_KINDS = {
    Shape.IMAGE: OpKind.ITEM,
    Shape.RECORD: OpKind.ITEM,
    Shape.COLLECTION: OpKind.COLLECTION,
    Shape.VALUE: OpKind.VALUE,
    Shape.SOURCE: OpKind.SOURCE,
}

# What a list is as well, besides what names it or `tuple`.
_WIDER = frozenset({Collection, Iterable, MutableSequence, Sequence, object})

# Names that op modules may import for type checkers only.
_NAMES: dict[str, Any] = {
    "Annotated": Annotated,
    "Any": Any,
    "Context": Context,
    "Dropped": Dropped,
    "File": File,
    "Image": Image,
    "Item": Item,
    "Items": Items,
    "Literal": Literal,
    "Page": Page,
    "Sequence": Sequence,
}


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function's signature says of the op.

    Attributes:
        shape: How it is called.
        ports: Its input ports in order.
        positional: Names of the positional parameters, one for each port.
        params: Annotation and default (`inspect.Parameter.empty` if required) of each param, by name.
        context: Name of the parameter that takes the context; None if it wants none.
        cursor: Whether it takes a cursor.
        output: What it gives.
        expands: Whether it may make several items of one.
    """

    shape: Shape
    ports: tuple[Port, ...]
    positional: tuple[str, ...]
    params: dict[str, tuple[Any, Any]]
    context: str | None
    cursor: bool
    output: PortType
    expands: bool

    @property
    def kind(self) -> OpKind:
        """What the op maps to what."""
        return _KINDS[self.shape]


def derive_signature(function: Callable[..., Any]) -> Signature:
    """Derive kind, ports and params of an op from its function.

    Raises:
        InvalidError: if the signature fits no kind of op; the message names the function and what to change.
    """
    where = f"op function {function.__module__}.{function.__qualname__}"
    try:
        namespace = {**_NAMES, **getattr(function, "__globals__", {})}
        hints = typing.get_type_hints(function, globalns=namespace, include_extras=True)
    except NameError as error:
        raise InvalidError(
            f"{where}: {error}; names in annotations must be importable when the op runs, not below TYPE_CHECKING"
        ) from error
    positional: list[tuple[str, Any]] = []
    params: dict[str, tuple[Any, Any]] = {}
    context: str | None = None
    cursor = False
    returned = hints.get("return", Any)
    for parameter in inspect.signature(function).parameters.values():
        annotation = hints.get(parameter.name, Any)
        match parameter.kind:
            case inspect.Parameter.POSITIONAL_ONLY | inspect.Parameter.POSITIONAL_OR_KEYWORD:
                positional.append((parameter.name, annotation))
            case inspect.Parameter.KEYWORD_ONLY if _without_none(annotation) is Context:
                context = parameter.name
            case inspect.Parameter.KEYWORD_ONLY if returned is Page and parameter.name == "cursor":
                cursor = True
            case inspect.Parameter.KEYWORD_ONLY:
                if parameter.name not in hints:
                    raise InvalidError(f"{where}: param {parameter.name!r} needs a type annotation")
                params[parameter.name] = (annotation, parameter.default)
            case _:
                raise InvalidError(f"{where}: *args and **kwargs cannot be described to users; name the params")
    shape = _shape_of([annotation for _, annotation in positional], returned, where)
    return Signature(
        shape=shape,
        ports=_ports_of(shape, positional),
        positional=tuple(name for name, _ in positional),
        params=params,
        context=context,
        cursor=cursor,
        output=_output_of(shape, returned),
        expands=shape is Shape.RECORD and _may_be_several(returned),
    )


def _shape_of(annotations: list[Any], returned: Any, where: str) -> Shape:
    if returned is Page:
        if annotations:
            raise InvalidError(f"{where}: a source takes no positional parameters; put them behind `*`")
        return Shape.SOURCE
    bare = [_without_none(annotation) for annotation in annotations]
    if any(kind in (Image, Item) for kind in bare):
        if len(bare) > 1:
            raise InvalidError(f"{where}: an item op takes one image or item; put its params behind `*`")
        return Shape.IMAGE if bare[0] is Image else Shape.RECORD
    if any(_is_items(kind) for kind in bare):
        if not all(_is_items(kind) for kind in bare):
            raise InvalidError(f"{where}: a collection op takes lists of items only; put its params behind `*`")
        return Shape.COLLECTION
    return Shape.VALUE


def _ports_of(shape: Shape, positional: list[tuple[str, Any]]) -> tuple[Port, ...]:
    def optional(annotation: Any) -> bool:
        return _without_none(annotation) is not annotation

    match shape:
        case Shape.SOURCE:
            return ()
        case Shape.IMAGE:
            return (Port("images", PortType.IMAGE, optional(positional[0][1])),)
        case Shape.RECORD:
            return (Port("items", PortType.RECORD, optional(positional[0][1])),)
        case Shape.COLLECTION if len(positional) == 1:
            opens = positional[0][0] == "images"
            return (Port("images", PortType.IMAGE) if opens else Port("items", PortType.RECORD),)
        case Shape.COLLECTION:
            return tuple(Port(name, PortType.RECORD, optional(annotation)) for name, annotation in positional)
        case Shape.VALUE:
            return tuple(Port(name, PortType.VALUE, optional(annotation)) for name, annotation in positional)


def _output_of(shape: Shape, returned: Any) -> PortType:
    match shape:
        case Shape.SOURCE | Shape.IMAGE:
            return PortType.IMAGE
        case Shape.RECORD:
            return PortType.RECORD
        case Shape.COLLECTION if returned is Items or _is_items(returned):
            return PortType.RECORD
        case Shape.COLLECTION | Shape.VALUE:
            return PortType.VALUE


def _is_items(annotation: Any) -> bool:
    origin = get_origin(annotation)
    return origin in (list, Sequence, tuple) and Item in get_args(annotation)


def _may_be_several(annotation: Any) -> bool:
    """Tell whether a value with this annotation may be a list or a tuple; one that says nothing definite may be."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _may_be_several(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return any(_may_be_several(part) for part in get_args(annotation))
    kind = origin or annotation
    if kind is Any or not isinstance(kind, type):
        return True
    return issubclass(kind, (list, tuple)) or kind in _WIDER


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [part for part in get_args(annotation) if part is not type(None)]
        if len(rest) == 1 and len(rest) < len(get_args(annotation)):
            return rest[0]
    return annotation
