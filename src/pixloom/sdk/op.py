"""`@op`: a typed Python function becomes an op of a workflow.

The annotations say what the op maps to what (see `pixloom.sdk.signature`), keyword-only parameters are its params, the
docstring is its documentation. The function itself stays callable as it is, which is how to test it:

    @op(version=1)
    def darken(image: Image, *, by: Annotated[int, Field(ge=0, le=255, description="Levels to subtract")] = 10) -> Image:
        '''Make an image darker.'''
        return image.with_vips((image.vips - by).cast("uchar"))

An op says what becomes of an item by raising `Reject`, `Filtered` or `Retry`.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, TypeVar, overload

from pixloom.errors import InvalidError
from pixloom.graph.catalogue import OpSpec, PortType
from pixloom.sdk.context import Context
from pixloom.sdk.encoding import Encoded, Encoding
from pixloom.sdk.image import Image
from pixloom.sdk.outcome import Filtered, Outcome, Reject, Retry
from pixloom.sdk.record import Dropped, File, Item, Items, Page
from pixloom.sdk.signature import Shape, Signature, derive_signature

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = [
    "Context",
    "Dropped",
    "Encoded",
    "Encoding",
    "File",
    "Filtered",
    "Image",
    "Item",
    "Items",
    "OpDefinition",
    "Outcome",
    "Page",
    "Reject",
    "Retry",
    "Shape",
    "definition_of",
    "op",
    "source",
    "spec_of",
]

_ATTRIBUTE = "__pixloom_op__"
_CODEC_PACKAGES = ("numpy", "pyvips", "pyvips-binary", "simplejpeg")

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class OpDefinition:
    """An op: its function and what was said about it.

    Attributes:
        name: Name without version.
        version: Version, counted from 1.
        function: The function, plain or `async`.
        signature: What its signature says.
        pool: Pool of executors that serve it.
        deterministic: Whether equal inputs and params always give equal outputs.
        external_effect: Whether it changes something outside Pixloom.
        cost_hint_s: Expected seconds an item (or a run).
        timeout_s: Time limit in seconds an item (or a run) if the workflow gives none.
        output: What it gives.
    """

    name: str
    version: int
    function: Callable[..., Any]
    signature: Signature
    pool: str
    deterministic: bool
    external_effect: bool
    cost_hint_s: float
    timeout_s: float
    output: PortType

    @property
    def ref(self) -> str:
        """Name with version, such as `image.thumbnail@1`."""
        return f"{self.name}@{self.version}"

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.function)

    @cached_property
    def params_model(self) -> type[BaseModel]:
        """Pydantic model of the params; unknown ones are refused."""
        from pydantic import BaseModel, ConfigDict, Field, create_model

        fields: dict[str, Any] = {}
        for name, (annotation, default) in self.signature.params.items():
            value = ... if default is inspect.Parameter.empty else default
            # A param may be called like a method of BaseModel; the model then keeps it under another name.
            taken = hasattr(BaseModel, name)
            fields[f"{name}_" if taken else name] = (annotation, Field(value, alias=name) if taken else value)
        title = "".join(part.capitalize() for part in self.name.replace(".", "_").split("_"))
        config = ConfigDict(extra="forbid", protected_namespaces=(), validate_default=False)
        return create_model(f"{title}Params", __config__=config, **fields)

    def bind(self, params_json: bytes | str) -> dict[str, Any]:
        """Validate params given as one JSON object and return the keyword arguments of the function.

        Raises:
            InvalidError: with INVALID_PARAMS and every problem, if they do not fit.
        """
        from pydantic import ValidationError

        try:
            model = self.params_model.model_validate_json(params_json or b"{}", strict=True)
        except ValidationError as error:
            problems = "; ".join(
                f"{'/'.join(map(str, problem['loc'])) or 'params'}: {problem['msg']}" for problem in error.errors()
            )
            raise InvalidError(f"params of {self.ref} are not valid: {problems}", reason="INVALID_PARAMS") from error
        return {
            name: getattr(model, name if name in self.params_model.model_fields else f"{name}_")
            for name in self.signature.params
        }

    @cached_property
    def spec(self) -> OpSpec:
        """What planner and validator know of the op, with the digest of its code and codecs."""
        documentation = inspect.getdoc(self.function) or ""
        schema = self.params_model.model_json_schema(by_alias=True)
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        return OpSpec(
            name=self.name,
            version=self.version,
            kind=self.signature.kind,
            output=self.output,
            inputs=self.signature.ports,
            params_schema=schema,
            summary=documentation.partition("\n")[0],
            documentation=documentation,
            pool=self.pool,
            deterministic=self.deterministic,
            external_effect=self.external_effect,
            expands=self.signature.expands,
            cost_hint_s=self.cost_hint_s,
            default_timeout_s=self.timeout_s,
            digest=self._digest(),
        )

    def _digest(self) -> str:
        parts = [self.ref, _source_of(self.function)]
        if any(port.type is PortType.IMAGE for port in self.signature.ports):
            parts.extend(_codec_versions())
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@overload
def op(name: F, /) -> F: ...
@overload
def op(
    name: str | None = None,
    *,
    version: int = 1,
    pool: str = "cpu",
    deterministic: bool = True,
    external_effect: bool = False,
    cost_hint_s: float = 0.01,
    timeout_s: float = 60.0,
    output: PortType | None = None,
) -> Callable[[F], F]: ...
def op(
    name: Any = None,
    *,
    version: int = 1,
    pool: str = "cpu",
    deterministic: bool = True,
    external_effect: bool = False,
    cost_hint_s: float = 0.01,
    timeout_s: float = 60.0,
    output: PortType | None = None,
) -> Any:
    """Make an op of a function.

    Args:
        name: Name such as `image.sharpen`; one without a dot is put below `user.`; default is the function's own.
        version: Version, counted from 1; raise it whenever the output changes.
        pool: Pool of executors that serve it.
        deterministic: Whether equal inputs and params always give equal outputs, so that results can be reused.
        external_effect: Whether it changes something outside Pixloom: never run ahead, never fused.
        cost_hint_s: Expected seconds an item (or a run for value and collection ops) until it was measured.
        timeout_s: Time limit in seconds an item (or a run) if the workflow gives none.
        output: What flows out, if not what the return annotation says.

    Returns:
        A decorator that returns the function itself.

    Raises:
        InvalidError: if the signature fits no kind of op or a figure is out of range.
    """

    def decorate(function: F) -> F:
        called = name if isinstance(name, str) else function.__name__
        if version < 1 or timeout_s <= 0 or cost_hint_s < 0:
            raise InvalidError(f"op {called}: version must be at least 1, timeout_s above 0, cost_hint_s not negative")
        signature = derive_signature(function)
        definition = OpDefinition(
            name=called if "." in called else f"user.{called}",
            version=version,
            function=function,
            signature=signature,
            pool=pool,
            deterministic=deterministic,
            external_effect=external_effect,
            cost_hint_s=cost_hint_s,
            timeout_s=timeout_s,
            output=output or signature.output,
        )
        setattr(function, _ATTRIBUTE, definition)
        return function

    return decorate(name) if callable(name) else decorate


def source(name: str | None = None, **options: Any) -> Callable[[F], F]:
    """Make a source of a function that returns a `Page`; takes the same options as `op`.

    Raises:
        InvalidError: if the function does not return a `Page`.
    """

    def decorate(function: F) -> F:
        decorated = op(name, **options)(function)
        if definition_of(decorated).signature.shape is not Shape.SOURCE:
            raise InvalidError(f"source {name or function.__name__}: the return annotation must be `Page`")
        return decorated

    return decorate


def definition_of(function: Callable[..., Any]) -> OpDefinition:
    """Return the definition that `op` attached to a function.

    Raises:
        InvalidError: if the function is no op.
    """
    definition = getattr(function, _ATTRIBUTE, None)
    if not isinstance(definition, OpDefinition):
        raise InvalidError(f"{getattr(function, '__qualname__', function)!s} is no op; decorate it with `@op`")
    return definition


def spec_of(function: Callable[..., Any]) -> OpSpec:
    """Return what planner and validator know of the op that a function is."""
    return definition_of(function).spec


def _source_of(function: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(inspect.unwrap(function))
    except (OSError, TypeError):
        return repr(function.__code__.co_code) if hasattr(function, "__code__") else repr(function)


@cache
def _codec_versions() -> tuple[str, ...]:
    from importlib import metadata

    versions = []
    for package in _CODEC_PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{package} -")
    return tuple(versions)
