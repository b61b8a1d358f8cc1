from __future__ import annotations

import pytest

from pixloom.errors import NotFoundError
from pixloom.graph.builtin import builtin_catalogue
from pixloom.graph.validation import validate
from pixloom.workflows import builtin_workflow, builtin_workflow_names


@pytest.mark.parametrize("name", builtin_workflow_names())
def test_every_workflow_that_comes_with_pixloom_is_valid(name: str) -> None:
    document = builtin_workflow(name)

    assert validate(document, builtin_catalogue()).problems == ()
    assert document["name"] == name


def test_unknown_workflow_names_those_there_are() -> None:
    with pytest.raises(NotFoundError, match="photo-catalog"):
        builtin_workflow("nothing")
