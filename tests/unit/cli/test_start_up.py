from __future__ import annotations

import subprocess
import sys


def test_help_loads_nothing_heavy() -> None:
    heavy = ["grpc", "pydantic", "numpy", "opentelemetry", "google.protobuf", "asyncio", "yaml"]
    code = (
        "import sys\nfrom pixloom.cli.__main__ import main\nassert main(['--help']) == 0\n"
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stderr.strip() == "[]"
    assert "photo-catalog" in done.stdout
