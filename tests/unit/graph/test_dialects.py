from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pixloom.graph import validate

if TYPE_CHECKING:
    from pixloom.graph import Catalogue


def typed() -> dict[str, Any]:
    return {
        "id": "My pipeline",
        "workflow_metadata": {"description": "d", "author": "x", "tags": {"team": "a"}},
        "nodes": [
            {"id": "load", "type": "SourceFolder", "config": {"path": "p"}, "dependencies": []},
            {"id": "small", "type": "thumbnail", "config": {"width": 3}, "dependencies": ["load"]},
            {"id": "sheet", "type": "contact_sheet", "config": {"columns": 4}, "dependencies": ["small"]},
            {"id": "text", "type": "value.template", "config": {"text": "x"}, "dependencies": ["sheet"]},
        ],
    }


def handled() -> dict[str, Any]:
    return {
        "name": "lab",
        "version": "1.2",
        "dag": {
            "nodes": [
                {"id": "load", "handler": "source.folder", "config": {"path": "p"}},
                {
                    "id": "small",
                    "handler": "image.thumbnail",
                    "config": {"width": 3},
                    "dependencies": ["load"],
                    "retry_policy": {"max_retries": 2, "backoff_factor": 3},
                    "timeout_seconds": 5,
                },
                {"id": "sheet", "handler": "agg.contact_sheet", "dependencies": ["small"]},
                {
                    "id": "text",
                    "handler": "value.template",
                    "config": {"text": "{{ sheet.url }}", "more": ["at {{sheet}}"]},
                    "dependencies": ["sheet"],
                },
            ]
        },
    }


def test_nodes_with_types_are_converted(catalogue: Catalogue) -> None:
    result = validate(typed(), catalogue)
    expected = {
        "name": "My-pipeline",
        "description": "d",
        "tags": {"team": "a"},
        "metadata": {"author": "x"},
        "nodes": [
            {"id": "load", "op": "source.folder", "params": {"path": "p"}},
            {"id": "small", "op": "image.thumbnail", "params": {"width": 3}, "inputs": {"images": "load"}},
            {"id": "sheet", "op": "agg.contact_sheet", "params": {"columns": 4}, "inputs": {"images": "small"}},
            {"id": "text", "op": "value.template", "params": {"text": "x"}, "dependencies": ["sheet"]},
        ],
    }
    assert result.problems == ()
    assert expected == result.document
    assert "small: `type: thumbnail` became `op: image.thumbnail`" in result.notes
    assert "small: reads load as `inputs.images`" in result.notes


def test_nodes_with_handlers_are_converted(catalogue: Catalogue) -> None:
    result = validate(handled(), catalogue)
    expected = {
        "name": "lab",
        "metadata": {"version": "1.2"},
        "nodes": [
            {"id": "load", "op": "source.folder", "params": {"path": "p"}},
            {
                "id": "small",
                "op": "image.thumbnail",
                "params": {"width": 3},
                "inputs": {"images": "load"},
                "retry": {"max_attempts": 3, "multiplier": 3},
                "timeout_s": 5,
            },
            {"id": "sheet", "op": "agg.contact_sheet", "inputs": {"images": "small"}},
            {
                "id": "text",
                "op": "value.template",
                "params": {"text": "${nodes.sheet.value.url}", "more": ["at ${nodes.sheet.value}"]},
                "dependencies": ["sheet"],
            },
        ],
    }
    assert result.problems == ()
    assert expected == result.document
    assert "text: `{{ sheet.url }}` became `${nodes.sheet.value.url}`" in result.notes


def test_several_item_dependencies_are_concatenated_and_others_stay_order_only(catalogue: Catalogue) -> None:
    document = typed()
    document["nodes"].append({"id": "more", "type": "source.folder", "config": {"path": "q"}})
    document["nodes"].append({"id": "all", "type": "dedupe.exact", "dependencies": ["small", "text", "more"]})
    node = validate(document, catalogue).document["nodes"][-1]
    assert node["inputs"] == {"items": ["small", "more"]}
    assert node["dependencies"] == ["text"]


def test_given_document_is_not_changed(catalogue: Catalogue) -> None:
    document = handled()
    validate(document, catalogue)
    assert document == handled()


def test_places_are_those_of_the_given_document(catalogue: Catalogue) -> None:
    document = handled()
    nodes = document["dag"]["nodes"]
    nodes[1]["handler"] = "image.thumbnial"
    nodes[1]["timeout_seconds"] = -1
    nodes[1]["retry_policy"]["sleep"] = 1
    nodes[2]["config"] = {"columns": 0}
    nodes[3]["dependencies"] = ["sheet", "nothing"]
    nodes[3]["colour"] = "red"
    result = validate(document, catalogue)
    expected = [
        ("/dag/nodes/1/handler", "UNKNOWN_OP"),
        ("/dag/nodes/1/retry_policy/sleep", "UNKNOWN_FIELD"),
        ("/dag/nodes/1/timeout_seconds", "INVALID_FIELD"),
        ("/dag/nodes/2", "MISSING_INPUT"),
        ("/dag/nodes/2/config/columns", "INVALID_PARAM"),
        ("/dag/nodes/3/dependencies", "UNKNOWN_NODE"),
        ("/dag/nodes/3/colour", "UNKNOWN_FIELD"),
    ]
    assert expected == [(problem.pointer, problem.reason) for problem in result.problems]
    assert "did you mean `image.thumbnail`?" in result.problems[0].detail


def test_older_dialect_with_nonsense_inside_is_refused_not_a_crash(catalogue: Catalogue) -> None:
    for document in (
        {"id": 3, "workflow_metadata": [], "nodes": {}},
        {"id": "x", "workflow_metadata": {}, "nodes": [1, {"type": 2}, {"id": [], "type": "x", "dependencies": 3}]},
        {"name": "x", "dag": {}},
        {"name": None, "dag": {"nodes": [{"id": "a", "handler": None, "config": 3, "retry_policy": 1}]}},
    ):
        assert validate(document, catalogue).problems
