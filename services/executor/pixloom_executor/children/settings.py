"""What children are told when they start."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any, Final

__all__ = ["ChildSettings", "child_environment"]

# Nothing else of the supervisor's environment reaches a child: no addresses, no credentials.
_PASSED: Final = frozenset({"HOME", "LANG", "LANGUAGE", "PATH", "TMPDIR", "TZ", "USER", "LOGNAME", "VIRTUAL_ENV"})
_PASSED_PREFIXES: Final = ("LC_", "PYTHON", "DYLD_", "LD_LIBRARY_PATH")

# One thread for each library: a child is one slot. Threads in the template would not survive a fork either.
_THREADS: Final = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "ARROW_IO_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "VIPS_BLOCK_UNTRUSTED": "1",
    "VIPS_CONCURRENCY": "1",
}


@dataclass(frozen=True, slots=True)
class ChildSettings:
    """How children run.

    Attributes:
        artifacts_url: URL of the artifact store, such as `file:///var/lib/pixloom/artifacts`.
        scratch_dir: Folder for temporary files of this executor alone; each child has a folder of its own below it.
        source_roots: Folders below which sources may read.
        imports: Modules with users' ops.
        memory_bytes: Most memory a child may have beyond that of the template (address space); 0 means no limit.
        file_bytes: Largest file a child may write; 0 means no limit.
        open_files: Most files a child may have open at once.
        cpu_s: Most processor seconds of a child in its life; 0 means no limit, time limits of items hold anyway.
    """

    artifacts_url: str
    scratch_dir: str
    source_roots: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    memory_bytes: int = 4 * 1024**3
    file_bytes: int = 16 * 1024**3
    open_files: int = 512
    cpu_s: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ChildSettings:
        """Return the settings that `to_json` made `data` of."""
        return cls(**{**data, "source_roots": tuple(data["source_roots"]), "imports": tuple(data["imports"])})


def child_environment() -> dict[str, str]:
    """Return the environment of the template and its children."""
    passed = {name: value for name, value in os.environ.items() if name in _PASSED or name.startswith(_PASSED_PREFIXES)}
    return {**passed, **_THREADS}
