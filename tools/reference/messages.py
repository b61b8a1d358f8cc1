"""grpc.md: services and messages, from the comments in the protos."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from tools.reference.markdown import code, page, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["PROTOS", "compile_protos", "grpc_page"]

PROTOS: Final = Path(__file__).parents[2] / "protos"

Field = descriptor_pb2.FieldDescriptorProto
# Field numbers in descriptor.proto, of which the paths of comments are made.
_FILE_MESSAGES, _FILE_ENUMS, _FILE_SERVICES = 4, 5, 6
_MESSAGE_FIELDS, _MESSAGE_MESSAGES, _MESSAGE_ENUMS = 2, 3, 4
_ENUM_VALUES = 2
_SERVICE_METHODS = 2


def compile_protos() -> descriptor_pb2.FileDescriptorSet:
    """Return the descriptors of our protos, with comments.

    Raises:
        RuntimeError: If they do not compile; the compiler has said why.
    """
    files = sorted(PROTOS.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "protos.binpb"
        words = ["protoc", f"-I{PROTOS}", f"-I{Path(protoc.__file__).parent / '_proto'}", "--include_source_info"]
        if protoc.main([*words, f"--descriptor_set_out={target}", *map(str, files)]) != 0:
            raise RuntimeError("the protos do not compile")
        return descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())


class _Comments:
    """The comments of one file by path."""

    def __init__(self, file: descriptor_pb2.FileDescriptorProto) -> None:
        self._by_path = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}

    def at(self, *path: int) -> str:
        lines = (line.strip() for line in self._by_path.get(path, "").splitlines())
        return "\n".join(lines).strip()


def _type_of(field: Field, maps: dict[str, descriptor_pb2.DescriptorProto], package: str) -> str:
    name = field.type_name.removeprefix(f".{package}.").removeprefix(".")
    if field.type_name in maps:
        key, value = maps[field.type_name].field
        return f"map<{_type_of(key, {}, package)}, {_type_of(value, {}, package)}>"
    kind = name or Field.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.label == Field.LABEL_REPEATED:
        return f"repeated {kind}"
    return f"optional {kind}" if field.proto3_optional else kind


def _enum(
    enum: descriptor_pb2.EnumDescriptorProto, name: str, comments: _Comments, path: Sequence[int]
) -> Iterator[str]:
    yield f"### enum {name}"
    yield comments.at(*path)
    rows = (
        (code(value.name), str(value.number), comments.at(*path, _ENUM_VALUES, index))
        for index, value in enumerate(enum.value)
    )
    yield table(("value", "number", "meaning"), rows)


def _message(
    message: descriptor_pb2.DescriptorProto, name: str, comments: _Comments, path: Sequence[int], package: str
) -> Iterator[str]:
    maps = {f".{package}.{name}.{nested.name}": nested for nested in message.nested_type if nested.options.map_entry}
    yield f"### message {name}"
    yield comments.at(*path)
    rows = []
    for index, field in enumerate(message.field):
        choice = ""
        if field.HasField("oneof_index") and not field.proto3_optional:
            choice = f" (one of `{message.oneof_decl[field.oneof_index].name}`)"
        meaning = comments.at(*path, _MESSAGE_FIELDS, index) + choice
        rows.append((code(field.name), code(_type_of(field, maps, package)), str(field.number), meaning))
    yield table(("field", "type", "number", "meaning"), rows)
    for index, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from _message(nested, f"{name}.{nested.name}", comments, (*path, _MESSAGE_MESSAGES, index), package)
    for index, enum in enumerate(message.enum_type):
        yield from _enum(enum, f"{name}.{enum.name}", comments, (*path, _MESSAGE_ENUMS, index))


def _service(
    service: descriptor_pb2.ServiceDescriptorProto, comments: _Comments, path: Sequence[int], package: str
) -> Iterator[str]:
    yield f"### service {service.name}"
    yield comments.at(*path)
    rows = []
    for index, method in enumerate(service.method):
        takes, gives = (kind.removeprefix(f".{package}.") for kind in (method.input_type, method.output_type))
        takes = f"stream {takes}" if method.client_streaming else takes
        gives = f"stream {gives}" if method.server_streaming else gives
        rows.append((code(method.name), code(takes), code(gives), comments.at(*path, _SERVICE_METHODS, index)))
    yield table(("call", "takes", "gives", "meaning"), rows)


def _file(file: descriptor_pb2.FileDescriptorProto) -> Iterator[str]:
    comments = _Comments(file)
    yield f"## {file.name}"
    for index, service in enumerate(file.service):
        yield from _service(service, comments, (_FILE_SERVICES, index), file.package)
    for index, message in enumerate(file.message_type):
        yield from _message(message, message.name, comments, (_FILE_MESSAGES, index), file.package)
    for index, enum in enumerate(file.enum_type):
        yield from _enum(enum, enum.name, comments, (_FILE_ENUMS, index))


def grpc_page() -> str:
    """Return the page."""
    files = sorted(compile_protos().file, key=lambda file: file.name)
    return page("gRPC", *(part for file in files for part in _file(file)))
