"""Pixloom: durable image-processing workflows.

    from pixloom import DAG, JobDefinition, node

    dag = DAG("thumbs")
    photos = dag.add(node("photos", "source.folder", path="photos"))
    small = dag.add(node("small", "image.thumbnail", images=photos, width=256))
    results = await JobDefinition(name="batch_1", dag=dag).execute()

Names are loaded when they are first used, so that importing the package and asking the command line for help cost
next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixloom.errors import PixloomError
    from pixloom.sdk.aio import AsyncClient
    from pixloom.sdk.client import Client
    from pixloom.sdk.dag import DAG, Node, node
    from pixloom.sdk.definition import JobDefinition, JobFailedError
    from pixloom.sdk.image import Image
    from pixloom.sdk.op import Context, Filtered, Item, Items, Reject, Retry, op, source
    from pixloom.sdk.result import ArtifactResult, CollectionResult

__all__ = [
    "DAG",
    "ArtifactResult",
    "AsyncClient",
    "Client",
    "CollectionResult",
    "Context",
    "Filtered",
    "Image",
    "Item",
    "Items",
    "JobDefinition",
    "JobFailedError",
    "Node",
    "PixloomError",
    "Reject",
    "Retry",
    "node",
    "op",
    "source",
]

_HOMES = {
    "ArtifactResult": "pixloom.sdk.result",
    "AsyncClient": "pixloom.sdk.aio",
    "Client": "pixloom.sdk.client",
    "CollectionResult": "pixloom.sdk.result",
    "Context": "pixloom.sdk.op",
    "DAG": "pixloom.sdk.dag",
    "Filtered": "pixloom.sdk.op",
    "Image": "pixloom.sdk.image",
    "Item": "pixloom.sdk.op",
    "Items": "pixloom.sdk.op",
    "JobDefinition": "pixloom.sdk.definition",
    "JobFailedError": "pixloom.sdk.definition",
    "Node": "pixloom.sdk.dag",
    "PixloomError": "pixloom.errors",
    "Reject": "pixloom.sdk.op",
    "Retry": "pixloom.sdk.op",
    "node": "pixloom.sdk.dag",
    "op": "pixloom.sdk.op",
    "source": "pixloom.sdk.op",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
