"""Links between the pages of the repository lead somewhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.repository import ROOT, files

if TYPE_CHECKING:
    from pathlib import Path

PAGES = {path.relative_to(ROOT).as_posix(): path for path in files() if path.suffix == ".md"}
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)[^)]*\)|<(?:img|a)\b[^>]*\b(?:src|href)=\"(?P<attribute>[^\"]+)\"")
CODE = re.compile(r"(?ms)^```.*?^```|`[^`\n]*`")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, made the way forges make them."""
    headings = re.findall(r"(?m)^#+\s+(.+?)\s*$", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    page = PAGES[name]
    broken = []
    for match in LINK.finditer(CODE.sub("", page.read_text(encoding="utf-8"))):
        target = match["target"] or match["attribute"]
        if ELSEWHERE.match(target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        is_missing = not found.exists() or ROOT not in found.parents
        if is_missing or (anchor and found.suffix == ".md" and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []
