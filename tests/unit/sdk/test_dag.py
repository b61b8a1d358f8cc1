from __future__ import annotations

import pytest

from pixloom import DAG, JobDefinition, node, op
from pixloom.errors import InvalidError
from pixloom.graph.builtin import builtin_catalogue
from pixloom.graph.validation import validate


def test_nodes_given_as_params_become_inputs_and_the_rest_params() -> None:
    dag = DAG("thumbs")
    photos = dag.add(node("photos", "source.folder", path="photos"))
    dag.add(node("small", "image.thumbnail", images=photos, width=256))

    assert dag.to_document() == {
        "name": "thumbs",
        "nodes": [
            {"id": "photos", "op": "source.folder", "params": {"path": "photos"}},
            {"id": "small", "op": "image.thumbnail", "inputs": {"images": "photos"}, "params": {"width": 256}},
        ],
        "outputs": {"small": "small"},
    }


def test_document_of_a_dag_is_valid() -> None:
    dag = DAG("thumbs", params={"width": {"type": "integer", "default": 256}})
    photos = dag.add(node("photos", "source.folder", path="photos"))
    dag.add(node("small", "image.thumbnail", images=photos, width="${params.width}", keep=True, timeout_s=30))

    document = JobDefinition(name="batch_1", dag=dag, tags={"release": "v1"}, metadata={"author": "a"}).to_document()
    result = validate(document, builtin_catalogue())

    assert result.problems == ()
    assert result.require().name == "batch_1"


def test_lists_of_nodes_concatenate_and_ids_are_accepted_for_items() -> None:
    dag = DAG("both")
    one = dag.add(node("one", "source.folder", path="a"))
    two = dag.add(node("two", "source.folder", path="b"))
    listed = dag.add(node("listed", "dedupe.exact", items=[one, two], key="sha256"))
    dag.add(node("table", "agg.manifest", items="listed"))

    assert listed.inputs == {"items": ["one", "two"]}
    assert dag.to_document()["outputs"] == {"table": "table"}


def test_settings_of_a_node_stand_beside_its_params() -> None:
    first = node("first", "debug.range", count=3)
    second = node("second", "debug.noop", items=first, when="true", retry={"max_attempts": 2}, dependencies=[first])

    assert second.to_document() == {
        "id": "second",
        "op": "debug.noop",
        "inputs": {"items": "first"},
        "when": "true",
        "retry": {"max_attempts": 2},
        "dependencies": ["first"],
    }


def test_params_named_like_settings_are_given_as_a_mapping() -> None:
    step = node("later", "my.op", params={"keep": 3})

    assert (step.params, step.settings) == ({"keep": 3}, {})


def test_decorated_function_stands_for_its_op() -> None:
    @op("shop.price", version=1)
    def price(*, amount: int) -> int:
        """Return a price."""
        return amount

    assert node("price", price, amount=3).op == "shop.price"


def test_id_that_is_taken_is_refused() -> None:
    dag = DAG("twice")
    dag.add(node("a", "debug.range", count=1))

    with pytest.raises(InvalidError, match="has a node a already"):
        dag.add(node("a", "debug.range", count=1))


def test_input_of_another_dag_is_refused() -> None:
    stranger = node("stranger", "debug.range", count=1)

    with pytest.raises(InvalidError, match="Add it first"):
        DAG("mine").add(node("b", "debug.noop", items=stranger))


def test_something_that_is_no_node_is_refused_as_input() -> None:
    with pytest.raises(InvalidError, match="items takes nodes or their ids, not int"):
        node("b", "debug.noop", items=[3])


def test_outputs_can_be_named() -> None:
    dag = DAG("named")
    numbers = dag.add(node("numbers", "debug.range", count=1))
    dag.output("all", numbers)

    assert dag.to_document()["outputs"] == {"all": "numbers"}
