"""Lease tokens: what an executor must show with every result.

A token is a nonce and an HMAC-SHA-256 over incarnation, job, generation, stage, tasks with attempts, and executor. It
cannot be forged without the deployment's key, becomes stale with the generation or when the database was restored,
and lets the next owner of a partition recognise leases that it did not grant itself.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable

__all__ = ["TokenMint"]

NONCE_BYTES: Final = 12
MAC_BYTES: Final = 20

Tasks = tuple[tuple[int, int], ...]


class TokenMint:
    """Makes and recognises lease tokens of one deployment."""

    def __init__(self, *, incarnation: uuid.UUID, key: bytes, nonce: Callable[[int], bytes]) -> None:
        self._incarnation = incarnation.bytes
        self._key = key
        self._nonce = nonce

    def mint(self, *, job: str, generation: int, stage: int, tasks: Tasks, executor: str) -> bytes:
        """Return a new token for tasks granted to an executor."""
        nonce = self._nonce(NONCE_BYTES)
        return nonce + self._mac(nonce, job=job, generation=generation, stage=stage, tasks=tasks, executor=executor)

    def is_genuine(self, token: bytes, *, job: str, generation: int, stage: int, tasks: Tasks, executor: str) -> bool:
        """Return whether `token` was minted for exactly these tasks and this executor, in constant time."""
        nonce, mac = token[:NONCE_BYTES], token[NONCE_BYTES:]
        return hmac.compare_digest(
            mac, self._mac(nonce, job=job, generation=generation, stage=stage, tasks=tasks, executor=executor)
        )

    def _mac(self, nonce: bytes, *, job: str, generation: int, stage: int, tasks: Tasks, executor: str) -> bytes:
        place = f"{job}\0{generation}\0{stage}\0{executor}\0".encode()
        listing = ",".join(f"{shard}.{attempt}" for shard, attempt in tasks).encode()
        return hmac.digest(self._key, self._incarnation + nonce + place + listing, hashlib.sha256)[:MAC_BYTES]
