"""Messages between supervisor and child: a length, then the bytes.

    to the child      RunFrame      a lease batch with what is known of items that took a child down
    from the child    ResultFrame   some results, digests to make durable before they count, whether the batch is done

Many small results travel in one frame; protobuf bytes are carried as they are.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from pixloom.v1 import executor_pb2 as pb
from pixloom_executor.item_chain import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LENGTH", "ResultFrame", "RunFrame"]

LENGTH: Final = struct.Struct("<I")
_RESULT_HEAD: Final = struct.Struct("<Q?III")
_DIGEST_BYTES: Final = 32


@dataclass(slots=True)
class RunFrame:
    """A batch for a child.

    Attributes:
        number: Number of the batch in the child's slot, counted from 1.
        batch: The batch; its tasks have their inputs in place.
        alone: Input items to run before all others, by shard.
        verdicts: Input items to reject without running them, by shard and index.
        columns: Whether ordinary results may come as columns.
    """

    number: int
    batch: pb.LeaseBatch
    alone: dict[int, list[int]] = field(default_factory=dict)
    verdicts: dict[int, dict[int, Verdict]] = field(default_factory=dict)
    columns: bool = False

    def encode(self) -> bytes:
        """Return the frame with its length."""
        head = orjson.dumps(
            {
                "number": self.number,
                "columns": self.columns,
                "alone": {str(shard): indexes for shard, indexes in self.alone.items()},
                "verdicts": {
                    str(shard): {
                        str(index): [verdict.call, verdict.reason, verdict.detail] for index, verdict in known.items()
                    }
                    for shard, known in self.verdicts.items()
                },
            }
        )
        body = self.batch.SerializeToString()
        return b"".join((LENGTH.pack(4 + len(head) + len(body)), LENGTH.pack(len(head)), head, body))

    @classmethod
    def decode(cls, data: bytes) -> RunFrame:
        """Return the frame in bytes without their length."""
        (size,) = LENGTH.unpack_from(data)
        head: dict[str, Any] = orjson.loads(data[4 : 4 + size])
        return cls(
            number=head["number"],
            batch=pb.LeaseBatch.FromString(data[4 + size :]),
            alone={int(shard): indexes for shard, indexes in head["alone"].items()},
            verdicts={
                int(shard): {int(index): Verdict(*verdict) for index, verdict in known.items()}
                for shard, known in head["verdicts"].items()
            },
            columns=head["columns"],
        )


@dataclass(slots=True)
class ResultFrame:
    """Results from a child.

    Attributes:
        number: Number of the batch.
        results: Serialised results.
        ordinary: Serialised columns of ordinary results; empty if there are none.
        digests: SHA-256 digests of artifacts they refer to.
        done: Whether no more results of the batch follow.
    """

    number: int
    results: Sequence[bytes]
    digests: Sequence[str] = ()
    done: bool = False
    ordinary: bytes = b""

    def encode(self) -> bytes:
        """Return the frame with its length."""
        parts = [_RESULT_HEAD.pack(self.number, self.done, len(self.digests), len(self.results), len(self.ordinary))]
        parts.extend(bytes.fromhex(digest) for digest in self.digests)
        for result in self.results:
            parts.append(LENGTH.pack(len(result)))
            parts.append(result)
        parts.append(self.ordinary)
        body = b"".join(parts)
        return LENGTH.pack(len(body)) + body

    @classmethod
    def decode(cls, data: bytes) -> ResultFrame:
        """Return the frame in bytes without their length."""
        number, done, digest_count, result_count, ordinary_size = _RESULT_HEAD.unpack_from(data)
        place = _RESULT_HEAD.size
        digests = []
        for _ in range(digest_count):
            digests.append(data[place : place + _DIGEST_BYTES].hex())
            place += _DIGEST_BYTES
        results = []
        for _ in range(result_count):
            (size,) = LENGTH.unpack_from(data, place)
            place += LENGTH.size
            results.append(data[place : place + size])
            place += size
        ordinary = data[place : place + ordinary_size]
        return cls(number=number, results=results, digests=digests, done=done, ordinary=ordinary)
