"""“Did you mean” for unknown names."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Suggester"]


class Suggester:
    """Finds known names close to unknown ones, within a budget of comparisons.

    The budget keeps a large document full of mistakes from taking minutes; once it is used up, no more suggestions are
    made.
    """

    def __init__(self, comparisons: int = 100_000) -> None:
        self._left = comparisons
        # The names are kept along with the answer, so that an identity is never used again for other names.
        self._found: dict[tuple[str, int], tuple[Collection[str], str]] = {}

    def hint(self, word: str, known: Collection[str]) -> str:
        """Return `; did you mean …?` for the known names closest to `word`, or an empty string."""
        key = (word, id(known))
        if key not in self._found:
            self._found[key] = (known, self._search(word, known))
        return self._found[key][1]

    def _search(self, word: str, known: Collection[str]) -> str:
        if self._left < len(known) or len(word) > 256:
            return ""
        self._left -= len(known)
        close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
        if not close:
            # A short name without its group, such as `thumbnail`, is far from `image.thumbnail` by edit distance.
            close = [name for name in known if word and word.lower() in name.lower().split(".")][:3]
        return f"; did you mean {' or '.join(f'`{name}`' for name in close)}?" if close else ""
