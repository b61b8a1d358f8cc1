from __future__ import annotations

from pixloom.v1 import item_pb2, job_pb2
from pixloom_gateway.items import items_at
from pixloom_gateway.rpc.forwarding import carried_metadata


def test_items_rejected_later_passed_here() -> None:
    items = [
        item_pb2.Item(key="before", node="x", state=item_pb2.ITEM_STATE_REJECTED, reason="R"),
        item_pb2.Item(key="here", node="n", state=item_pb2.ITEM_STATE_FILTERED, reason="R", detail="why"),
        item_pb2.Item(key="later", node="z", state=item_pb2.ITEM_STATE_REJECTED, reason="R", detail="why"),
    ]
    entry = job_pb2.NodeManifest(rejects=True, later_nodes=["y", "z"])
    assert [(item.key, item.state, item.reason, item.detail) for item in items_at(entry, items, node="n")] == [
        ("here", item_pb2.ITEM_STATE_FILTERED, "R", "why"),
        ("later", item_pb2.ITEM_STATE_OK, "", ""),
    ]


def test_everything_that_came_out_passed() -> None:
    items = [item_pb2.Item(key="a")]
    (found,) = items_at(job_pb2.NodeManifest(), items, node="n")
    assert found.state == item_pb2.ITEM_STATE_OK


def test_metadata_of_one_hop_stays_behind() -> None:
    given = [("traceparent", "x"), ("user-agent", "y"), ("grpc-timeout", "1S"), (":path", "/"), ("x-mine", "1")]
    assert carried_metadata(given) == (("x-mine", "1"),)
