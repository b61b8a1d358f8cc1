"""What a run gives back: JSON values as they are, artifacts and collections as objects that read on demand."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from pixloom.resources import OutputKind
from pixloom.sdk.files import saved_to

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixloom.resources import Item, Output, Results

__all__ = ["ArtifactResult", "CollectionResult", "NodeResult", "Reader", "node_results"]


class Reader(Protocol):
    """Where results are read from: a server, or what an embedded one left behind."""

    def read_artifact(self, sha256: str) -> bytes:
        """Return the bytes of an artifact."""

    def iter_items(self, job_id: str, node: str) -> Iterator[Item]:
        """Yield the items of a node in the order in which their tasks ended."""


@dataclass(frozen=True, slots=True)
class ArtifactResult:
    """A file that a node made.

    Attributes:
        sha256: SHA-256 of its bytes.
        size_bytes: Their length.
        media_type: Their media type.
        facts: What the op tells about it.
    """

    sha256: str
    size_bytes: int
    media_type: str
    facts: Any
    reader: Reader = field(repr=False, compare=False)

    def bytes(self) -> bytes:
        """Return the bytes."""
        return self.reader.read_artifact(self.sha256)

    def save(self, path: Path | str) -> Path:
        """Write the bytes to a file, whole or not at all, and return its path."""
        with saved_to(Path(path)) as file:
            file.write(self.bytes())
        return Path(path)


@dataclass(frozen=True, slots=True)
class CollectionResult:
    """The items that a node gave; iterate over it to get them, in the order in which their tasks ended.

    Attributes:
        job_id: Id of the job.
        node: Id of the node.
        count: Number of items.
    """

    job_id: str
    node: str
    count: int
    reader: Reader = field(repr=False, compare=False)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Item]:
        return iter(self.reader.iter_items(self.job_id, self.node))

    def read(self, item: Item) -> bytes:
        """Return the bytes of one of the items.

        Raises:
            ValueError: If the item has no bytes in the object store.
        """
        if item.uri is None or not item.uri.startswith("cas:"):
            raise ValueError(f"The bytes of {item.key} are not in the object store but at {item.uri}.")
        return self.reader.read_artifact(item.uri.removeprefix("cas:"))


NodeResult: TypeAlias = ArtifactResult | CollectionResult | Any
"""Result of a node: an `ArtifactResult`, a `CollectionResult`, or a JSON value."""


def node_results(job_id: str, results: Results, reader: Reader) -> dict[str, NodeResult]:
    """Return the results of a job by node id."""
    return {name: _result(job_id, output, reader) for name, output in results.nodes.items()}


def _result(job_id: str, output: Output, reader: Reader) -> NodeResult:
    if output.kind is OutputKind.ARTIFACT and output.artifact is not None:
        artifact = output.artifact
        return ArtifactResult(artifact.sha256, artifact.size_bytes, artifact.media_type, output.value, reader)
    if output.kind is OutputKind.COLLECTION:
        return CollectionResult(job_id, output.node, output.count or 0, reader)
    return output.value
