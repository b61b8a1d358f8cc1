"""A stand-in for a service, run as a child process: `stand_in.py gateway PORT [MISSING]`, `… sleeper` or `… broken`.

The gateway answers `GET /readyz`; the sleeper runs until SIGTERM; the stubborn one ignores SIGTERM and has a child of
its own; the broken one ends at once.
"""

from __future__ import annotations

import http.server
import json
import signal
import subprocess
import sys
from typing import ClassVar


class Ready(http.server.BaseHTTPRequestHandler):
    missing: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.send_response(503 if self.missing else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"missing": self.missing}).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Keep quiet."""


def main(role: str, *rest: str) -> None:
    if role == "gateway":
        Ready.missing = list(rest[1:])
        http.server.ThreadingHTTPServer(("127.0.0.1", int(rest[0])), Ready).serve_forever()
    elif role == "sleeper":
        signal.pause()
    elif role == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, __file__, "sleeper"])
        sys.stdout.write(f"{child.pid}\n")
        sys.stdout.flush()
        while True:
            signal.pause()
    else:
        sys.stderr.write("the settings are not valid: PIXLOOM_X\n")
        sys.exit(int(rest[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
