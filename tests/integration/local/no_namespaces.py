"""Run a program as a root that may open no user namespace: `no_namespaces.py [CAPABILITY…] -- PROGRAM ARGUMENT…`.

Where namespaces can be opened, the limit on them is set to none inside one that has all users; the machine's own
settings stay. The capabilities given by number are dropped for good.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

CLONE_NEWUSER = 0x10000000
PR_CAPBSET_DROP = 24


def main(words: list[str]) -> None:
    split = words.index("--")
    libc = ctypes.CDLL(None, use_errno=True)
    ready, mapped = os.pipe(), os.pipe()
    parent = os.getpid()
    helper = os.fork()
    if helper == 0:
        # The maps of all users can only be written from outside the namespace.
        if os.read(ready[0], 1) == b"y":
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{parent}/{name}").write_text("0 0 65536", encoding="ascii")
        os.write(mapped[1], b"y")
        os._exit(0)
    opened = libc.unshare(CLONE_NEWUSER) == 0
    os.write(ready[1], b"y" if opened else b"n")
    os.read(mapped[0], 1)
    os.waitpid(helper, 0)
    if opened:
        Path("/proc/sys/user/max_user_namespaces").write_text("0", encoding="ascii")
    for capability in words[:split]:
        libc.prctl(PR_CAPBSET_DROP, int(capability), 0, 0, 0)
    os.execv(words[split + 1], words[split + 1 :])  # noqa: S606 - what the test asks for


if __name__ == "__main__":
    main(sys.argv[1:])
