from __future__ import annotations

from typing import Any

DOCUMENT = b'{"name": "w", "nodes": [ ],  "description": "spaces stay"}'
OTHER = b'{"name": "w", "nodes": [], "description": "other"}'


async def test_document_comes_back_byte_for_byte(http: Any) -> None:
    created = await http.post("/api/v1/workflows", content=DOCUMENT)
    assert created.status_code == 201
    assert created.headers["location"] == "/api/v1/workflows/w"
    shown = await http.get("/api/v1/workflows/w")
    assert DOCUMENT in shown.content
    assert shown.json()["version"] == 1
    assert shown.headers["etag"] == f'"{shown.json()["sha256"]}"'


async def test_name_taken_by_other_content_is_a_conflict(http: Any) -> None:
    await http.post("/api/v1/workflows", content=DOCUMENT)
    assert (await http.post("/api/v1/workflows", content=DOCUMENT)).status_code == 201
    answer = await http.post("/api/v1/workflows", content=OTHER)
    assert (answer.status_code, answer.json()["reason"]) == (409, "ALREADY_EXISTS")


async def test_put_makes_a_version_only_for_new_content(http: Any) -> None:
    answers = [await http.put("/api/v1/workflows/w", content=body) for body in (DOCUMENT, DOCUMENT, OTHER)]
    assert [(answer.status_code, answer.json()["version"]) for answer in answers] == [(201, 1), (200, 1), (200, 2)]
    page = (await http.get("/api/v1/workflows/w/versions")).json()["items"]
    assert [(entry["version"], entry["spec"]) for entry in page] == [(2, None), (1, None)]
    assert (await http.get("/api/v1/workflows/w/versions/1")).json()["spec"]["description"] == "spaces stay"
    assert (await http.get("/api/v1/workflows/w/versions/3")).status_code == 404
    (listed,) = (await http.get("/api/v1/workflows")).json()["items"]
    assert (listed["name"], listed["version"], listed["spec"]) == ("w", 2, None)


async def test_if_match_guards_changes(http: Any) -> None:
    etag = (await http.put("/api/v1/workflows/w", content=DOCUMENT)).headers["etag"]
    stale = {"If-Match": f'"{"0" * 64}"'}
    for call in (
        http.put("/api/v1/workflows/w", content=OTHER, headers=stale),
        http.delete("/api/v1/workflows/w", headers=stale),
    ):
        answer = await call
        assert (answer.status_code, answer.json()["reason"]) == (412, "VERSION_CONFLICT")
    missing = await http.put("/api/v1/workflows/x", content=b'{"name":"x"}', headers={"If-Match": "*"})
    assert missing.status_code == 404
    assert (await http.put("/api/v1/workflows/w", content=OTHER, headers={"If-Match": "abc"})).status_code == 400
    changed = await http.put("/api/v1/workflows/w", content=OTHER, headers={"If-Match": etag})
    assert changed.json()["version"] == 2
    assert (
        await http.get("/api/v1/workflows/w", headers={"If-None-Match": changed.headers["etag"]})
    ).status_code == 304
    assert (await http.delete("/api/v1/workflows/w")).status_code == 204
    assert (await http.get("/api/v1/workflows/w")).status_code == 404


async def test_validation_shows_all_problems_in_the_answer(http: Any) -> None:
    good = (await http.post("/api/v1/workflows:validate", content=DOCUMENT)).json()
    assert (good["valid"], good["problems"], len(good["sha256"])) == (True, [], 64)
    bad = await http.post("/api/v1/workflows:validate", content=b'{"name":"w","x":1,"x":2}')
    assert bad.status_code == 200
    assert bad.json()["valid"] is False
    assert bad.json()["problems"][0]["reason"] == "DUPLICATE_KEY"
    refused = await http.post("/api/v1/workflows", content=b'{"nodes":[]}')
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/name")
    assert (await http.post("/api/v1/workflows")).status_code == 400


async def test_plan_shows_stages(http: Any) -> None:
    for body in ({"workflow": "w"}, {"spec": {"name": "w"}, "params": {"a": 1}}):
        plan = (await http.post("/api/v1/workflows:plan", json=body)).json()
        assert plan["stages"][0]["nodes"] == ["a", "b"]
        assert plan["stages"][0]["cost_s"] == 0.25
        assert plan["stages"][0]["items"] is None
    assert (await http.post("/api/v1/workflows:plan", json={})).status_code == 400
