"""`python -m pixloom_scheduler.database upgrade|check`: the database by itself, without a scheduler.

`pixloom db` becomes this process. Results go to the standard output, everything else to the error stream; the exit code
is 0 when all is well, 1 when invariants are broken or the machine is at fault, 2 for bad settings, 3 when the database
does not answer.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import orjson

from pixloom.artifacts.store import open_store
from pixloom.errors import CallerError, PeerError, PixloomError
from pixloom.settings import SchedulerSettings, load_settings
from pixloom_scheduler.journal import schema
from pixloom_scheduler.journal.check.database import check_database

if TYPE_CHECKING:
    from pixloom_scheduler.journal.check.findings import Findings

__all__ = ["main"]


async def _upgrade(settings: SchedulerSettings) -> None:
    engine = schema.create_engine(settings.database_url)
    try:
        await schema.upgrade(engine)
        await schema.add_days(engine)
    finally:
        await engine.dispose()


def _show(findings: Findings, output: str) -> None:
    if output == "json":
        content = {"ok": not findings.count, **asdict(findings)}
        sys.stdout.write(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode() + "\n")
        return
    for violation in findings.violations:
        if output == "jsonl":
            sys.stdout.write(orjson.dumps(asdict(violation)).decode() + "\n")
        else:
            place = " ".join(filter(None, (f"job {violation.job}" if violation.job else "", violation.where)))
            sys.stdout.write(f"{place}: {violation.detail}\n  broken: {violation.rule}\n")
    if findings.count > len(findings.violations):
        sys.stderr.write(f"… and {findings.count - len(findings.violations)} more.\n")
    looked_at = f"{findings.jobs} jobs, {findings.rows} journal rows"
    if findings.artifacts:
        looked_at += f", {findings.artifacts} artifacts"
    verdict = f"{findings.count} violations" if findings.count else "every invariant holds"
    sys.stderr.write(f"{looked_at}: {verdict}.\n")


def main() -> int:
    """Do what the arguments say and return the exit code."""
    parser = argparse.ArgumentParser(prog="pixloom db")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("upgrade")
    check = verbs.add_parser("check")
    check.add_argument("--output", choices=["table", "json", "jsonl"], default="table")
    check.add_argument("--at-rest", action="store_true")
    check.add_argument("--artifacts", action="store_true")
    arguments = parser.parse_args()
    try:
        settings = load_settings(SchedulerSettings)
        if arguments.verb == "upgrade":
            asyncio.run(_upgrade(settings))
            sys.stderr.write("The database is up to date.\n")
            return 0
        store = open_store(settings.artifacts_url) if arguments.artifacts else None
        findings = asyncio.run(check_database(settings.database_url, at_rest=arguments.at_rest, artifacts=store))
    except PixloomError as error:
        sys.stderr.write(f"Error: {error.message}\n")
        return 2 if isinstance(error, CallerError) else 3 if isinstance(error, PeerError) else 1
    _show(findings, arguments.output)
    return 1 if findings.count else 0


if __name__ == "__main__":
    sys.exit(main())
