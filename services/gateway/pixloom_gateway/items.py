"""The items of a node, read from the manifests that the scheduler names.

A node in the middle of a fused stage has no manifest of what passed it unless it was kept: what passed are the items
that came out of the stage, and those filtered or rejected at a later node of it.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson

from pixloom.artifacts.manifest import aread_items
from pixloom.errors import InvalidError
from pixloom.v1 import item_pb2, job_pb2
from pixloom_gateway.upstream import methods

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixloom.artifacts.store import ArtifactStore
    from pixloom_gateway.upstream.scheduler import Scheduler

__all__ = ["DEFAULT_PAGE_SIZE", "MAX_PAGE_SIZE", "ItemReader", "items_at"]

DEFAULT_PAGE_SIZE: Final = 100
MAX_PAGE_SIZE: Final = 1000
# A place in a page of manifests is only good for pages of one size.
_MANIFESTS_PAGE: Final = 32
# A rare reason must not make one call read a whole job: a short page with a token is returned instead.
_MANIFESTS_PER_CALL: Final = 256


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the next page begins.

    Attributes:
        token: Token of the page of manifests.
        manifest: Index of the manifest in that page.
        offset: Number of matching items of that manifest already returned.
    """

    token: str = ""
    manifest: int = 0
    offset: int = 0

    def encode(self) -> str:
        """Return the token that names this place."""
        return base64.urlsafe_b64encode(orjson.dumps([self.token, self.manifest, self.offset])).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> _Place:
        """Return the place a token names.

        Raises:
            InvalidError: If it is not one that `encode` made.
        """
        if not text:
            return cls()
        try:
            value = orjson.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        except (binascii.Error, ValueError) as error:
            raise _bad_token(text) from error
        match value:
            case [str(token), int(manifest), int(offset)] if manifest >= 0 and offset >= 0:
                return cls(token, manifest, offset)
        raise _bad_token(text)


class ItemReader:
    """Lists items of nodes."""

    def __init__(self, scheduler: Scheduler, store: ArtifactStore) -> None:
        self._scheduler = scheduler
        self._store = store

    async def list_items(self, request: job_pb2.ListItemsRequest) -> job_pb2.ListItemsResponse:
        """Return a page of the items of a node.

        Raises:
            InvalidError: If page size or token are not valid.
            NotFoundError: If there is no such job or node, or its bytes are gone.
        """
        size = request.page_size or DEFAULT_PAGE_SIZE
        if size > MAX_PAGE_SIZE:
            raise InvalidError(f"page_size {size} is too large: ask for at most {MAX_PAGE_SIZE} items.")
        place = _Place.decode(request.page_token)
        response = job_pb2.ListItemsResponse()
        read = 0
        while True:
            page = await self._scheduler.call(
                methods.LIST_MANIFESTS,
                job_pb2.ListManifestsRequest(
                    id=request.id,
                    node=request.node,
                    states=request.states,
                    page_size=_MANIFESTS_PAGE,
                    page_token=place.token,
                ),
            )
            for index in range(place.manifest, len(page.manifests)):
                if read == _MANIFESTS_PER_CALL:
                    response.next_page_token = _Place(place.token, index, 0).encode()
                    return response
                entry = page.manifests[index]
                items = await aread_items(entry.manifest, self._store)
                read += 1
                skip = place.offset if index == place.manifest else 0
                matching = [item for item in items_at(entry, items, node=request.node) if _matches(item, request)]
                room = size - len(response.items)
                if len(matching) - skip > room:
                    response.items.extend(matching[skip : skip + room])
                    response.next_page_token = _Place(place.token, index, skip + room).encode()
                    return response
                response.items.extend(matching[skip:])
            if not page.next_page_token:
                return response
            place = _Place(page.next_page_token)
            if len(response.items) == size:
                response.next_page_token = place.encode()
                return response


def items_at(entry: job_pb2.NodeManifest, items: list[item_pb2.Item], *, node: str) -> Iterator[item_pb2.Item]:
    """Yield those items of a manifest that were at a node, with what became of them there."""
    if entry.excluded:
        excluded = set(entry.excluded)
        items = [item for place, item in enumerate(items) if place not in excluded]
    if not entry.rejects:
        for item in items:
            item.state = item_pb2.ITEM_STATE_OK
            yield item
        return
    later = set(entry.later_nodes)
    for item in items:
        if item.node == node:
            yield item
        elif item.node in later:
            item.state = item_pb2.ITEM_STATE_OK
            item.reason = item.detail = item.node = ""
            yield item


def _matches(item: item_pb2.Item, request: job_pb2.ListItemsRequest) -> bool:
    if request.states and item.state not in request.states:
        return False
    return not request.reason or item.reason == request.reason


def _bad_token(text: str) -> InvalidError:
    return InvalidError(f"page_token {text[:80]!r} is not one that this service gave out: begin without one.")
