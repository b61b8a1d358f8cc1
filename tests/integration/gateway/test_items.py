from __future__ import annotations

from typing import Any

import pytest

from pixloom.artifacts.manifest import encode_items
from pixloom.v1 import job_pb2
from tests.integration.gateway.peer import item


@pytest.fixture
async def items_url(http: Any, peer: Any, store: Any) -> Any:
    """A job whose stage is a, b, c: 300 items in 3 shards, of each the first rejected at a, at b and at c."""
    job_id = (await http.post("/api/v1/jobs", json={"spec": {"name": "w"}})).json()["id"]
    journal = peer.jobs.journal(job_id)
    passed, lost = [], []
    for shard in range(3):
        first = shard * 100
        rejects = [
            item(first, f"{first}", state="REJECTED", reason="TRUNCATED", node="a"),
            item(first + 1, f"{first + 1}", state="FILTERED", reason="SMALL", node="b"),
            item(first + 2, f"{first + 2}", state="REJECTED", reason="CRASHED", node="c"),
        ]
        good = [item(number, f"{number}") for number in range(first + 3, first + 100)]
        passed.append(encode_items(good, store))
        lost.append(encode_items(rejects, store))
    for node, later in (("a", ["b", "c"]), ("b", ["c"]), ("c", [])):
        journal.manifests[node] = [
            entry
            for good, bad in zip(passed, lost, strict=True)
            for entry in (
                job_pb2.NodeManifest(manifest=good),
                job_pb2.NodeManifest(manifest=bad, rejects=True, later_nodes=later),
            )
        ]
    return f"/api/v1/jobs/{job_id}/nodes"


async def listed(http: Any, url: Any, *, page_size: Any = 1000, **query: Any) -> Any:
    found, token = [], ""
    while True:
        answer = await http.get(url, params={"page_size": page_size, "page_token": token, **query})
        assert answer.status_code == 200, answer.text
        found += answer.json()["items"]
        assert len(answer.json()["items"]) <= page_size
        token = answer.json()["next_page_token"]
        if not token:
            return found


@pytest.mark.parametrize(
    ("node", "counts"),
    [
        ("a", {"OK": 297, "FILTERED": 0, "REJECTED": 3}),
        ("b", {"OK": 294, "FILTERED": 3, "REJECTED": 0}),
        ("c", {"OK": 291, "FILTERED": 0, "REJECTED": 3}),
    ],
)
async def test_every_item_at_a_node_is_listed_once_with_its_state_there(
    http: Any, items_url: Any, node: Any, counts: Any
) -> None:
    for state, count in counts.items():
        found = await listed(http, f"{items_url}/{node}/items", state=state)
        assert len({entry["key"] for entry in found}) == len(found) == count
        assert {entry["state"] for entry in found} <= {state}
        if state == "OK":
            assert {(entry["reason"], entry["node"]) for entry in found} == {(None, None)}
    everything = await listed(http, f"{items_url}/{node}/items")
    assert len(everything) == sum(counts.values())


@pytest.mark.parametrize("page_size", [29, 97, 100])
async def test_pages_give_every_item_once_and_in_order(http: Any, items_url: Any, page_size: Any) -> None:
    whole = await listed(http, f"{items_url}/a/items")
    assert await listed(http, f"{items_url}/a/items", page_size=page_size) == whole


async def test_items_are_filtered_by_reason(http: Any, items_url: Any) -> None:
    found = await listed(http, f"{items_url}/c/items", page_size=2, reason="CRASHED")
    assert [entry["key"] for entry in found] == ["2", "102", "202"]
    assert found[0]["attributes"] == {"sharp": 0.5}


async def test_malformed_page_tokens_are_refused(http: Any, items_url: Any) -> None:
    for token in ("x", "WzFd", "AAAA", "é", "W10"):
        answer = await http.get(f"{items_url}/a/items", params={"page_token": token})
        assert answer.status_code == 400


async def test_unknown_node_is_not_found(http: Any, items_url: Any) -> None:
    assert (await http.get(f"{items_url}/z/items")).status_code == 404
    assert (await http.get(f"{items_url}/a/items?state=LOST")).status_code == 400
