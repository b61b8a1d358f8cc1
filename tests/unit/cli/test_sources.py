from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pixloom.cli.sources import bind_images, require_images, source_folders
from pixloom.errors import InvalidError


def _document(path: str) -> dict[str, Any]:
    return {
        "name": "w",
        "params": {"source": {"type": "string", "default": "default"}},
        "nodes": [{"id": "a", "op": "source.folder@1", "params": {"path": path, "recursive": False}}],
    }


def test_folder_with_images_below_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.JPG").touch()

    assert require_images(tmp_path) == tmp_path


@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_other_places_are_refused_with_place_and_remedy(tmp_path: Path, kind: str) -> None:
    place = tmp_path / kind
    if kind == "file":
        place.touch()
    elif kind == "empty":
        place.mkdir()

    with pytest.raises(InvalidError, match=str(place)):
        require_images(place)


def test_images_become_the_param_of_the_source() -> None:
    document = _document("${params.source}")

    assert bind_images(document, [Path("/photos")]) == (document, {"source": "/photos"})


def test_images_replace_a_path_written_in_the_document() -> None:
    bound, params = bind_images(_document("elsewhere"), [Path("/photos")])

    assert (bound["nodes"][0]["params"], params) == ({"path": "/photos", "recursive": False}, {})


def test_workflow_without_one_source_takes_no_images() -> None:
    with pytest.raises(InvalidError, match=r"0 nodes with source\.folder"):
        bind_images({"name": "w", "nodes": []}, [Path("/photos")])


@pytest.mark.parametrize(("params", "expected"), [({}, "default"), ({"source": "given"}, "given")])
def test_folders_follow_from_document_and_params(params: dict[str, str], expected: str) -> None:
    assert list(source_folders(_document("${params.source}"), params)) == [Path(expected)]
