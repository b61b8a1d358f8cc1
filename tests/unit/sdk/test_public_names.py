from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import pixloom


def test_public_names_are_these() -> None:
    assert pixloom.__all__ == [
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


@pytest.mark.parametrize("name", pixloom.__all__)
def test_every_public_name_can_be_loaded(name: Any) -> None:
    assert getattr(pixloom, name).__name__ == name


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pixloom.nothing


def test_importing_the_package_loads_nothing_else() -> None:
    code = "import sys, pixloom; print(sorted(name for name in sys.modules if name.startswith('pixloom')))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "['pixloom']"
