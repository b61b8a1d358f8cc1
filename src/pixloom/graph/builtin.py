"""The ops that come with Pixloom, known without any executor."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files

from pixloom.graph.catalogue import Catalogue
from pixloom.graph.catalogue_codec import catalogue_from_json

__all__ = ["builtin_catalogue"]


@lru_cache(maxsize=1)
def builtin_catalogue() -> Catalogue:
    """Return the built-in ops, as generated from their code into `builtin_ops.json`; none if that file is missing."""
    resource = files("pixloom.graph").joinpath("builtin_ops.json")
    if not resource.is_file():
        return Catalogue()
    return catalogue_from_json(json.loads(resource.read_text(encoding="utf-8")))
