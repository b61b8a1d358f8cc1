"""How large a workflow document may be, each limit with the place that enforces it.

A document that breaks one of these is refused before anything looks at its meaning.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "MAX_CONDITION_BYTES",
    "MAX_DOCUMENT_BYTES",
    "MAX_NESTING",
    "MAX_NODES",
    "MAX_PROBLEMS",
    "MAX_STRING_BYTES",
    "MAX_YAML_VALUES",
]

MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024
"""Bytes of a document as UTF-8 JSON or YAML."""

MAX_NESTING: Final = 32
"""Objects and arrays inside one another, the document itself included."""

MAX_STRING_BYTES: Final = 64 * 1024
"""Bytes of one string or key as UTF-8."""

MAX_NODES: Final = 20_000
"""Nodes of a workflow."""

MAX_CONDITION_BYTES: Final = 4 * 1024
"""Bytes of one CEL expression as UTF-8."""

MAX_YAML_VALUES: Final = 1_000_000
"""Values of a YAML document once its aliases are followed; stops documents that grow out of a few lines."""

MAX_PROBLEMS: Final = 1_000
"""Problems reported of one document; the rest is counted."""
