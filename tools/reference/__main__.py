"""Write the pages: `python -m tools.reference [FOLDER]`."""

from __future__ import annotations

import sys
from pathlib import Path

from tools.reference.pages import PAGES, REFERENCE


def main(folder: Path) -> None:
    """Write all pages into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else REFERENCE)
