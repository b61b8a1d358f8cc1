"""The list of built-in ops that ships with the package, so that workflows are validated where no executor runs.

`python -m pixloom_executor.catalogue` writes it anew. Digests are left out: they depend on the codecs of an executor,
which announces them itself.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import orjson

from pixloom.graph.catalogue_codec import op_to_json
from pixloom_executor.registry import Registry

__all__ = ["builtin_ops_json", "main"]


def builtin_ops_json() -> bytes:
    """Return the list as JSON, ops by name and version."""
    specs = [op_to_json(replace(spec, digest="")) for spec in Registry.load().specs()]
    return orjson.dumps(specs, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def main() -> None:
    """Write the list into the package `pixloom.graph`."""
    Path(str(resources.files("pixloom.graph") / "builtin_ops.json")).write_bytes(builtin_ops_json())


if __name__ == "__main__":
    main()
