"""Every case, in the order in which they are run."""

from __future__ import annotations

from tests.faults.cases import disk, network, processes, reports, servers, soak, values

__all__ = ["CASES"]

CASES = (*processes.CASES, *servers.CASES, *network.CASES, *reports.CASES, *disk.CASES, *values.CASES, *soak.CASES)
