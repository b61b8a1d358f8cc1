"""Settings of every process: the environment first (prefix `PIXLOOM_`), then `pixloom.toml`, then defaults.

One class per process, so that a process only asks for what it needs and a mistyped address fails at its start. The
field descriptions are what the settings reference shows. `pixloom.toml` in the working directory is flat: its keys
are the field names of all classes together, and an unknown key is refused with the nearest known one.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from pixloom.errors import InvalidError, MachineError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "ALL_SETTINGS",
    "ClientSettings",
    "ExecutorSettings",
    "GatewaySettings",
    "ProcessSettings",
    "SchedulerSettings",
    "StoreSettings",
    "load_settings",
    "loopback_only",
    "split_address",
]

ENV_PREFIX: Final = "PIXLOOM_"
FILE_NAME: Final = "pixloom.toml"


def _split_by(separator: str) -> BeforeValidator:
    """Return a validator that turns `a<separator>b` into a tuple, dropping blanks and empty parts."""

    def split(value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(separator) if part.strip())
        return value

    return BeforeValidator(split)


def _checked(check: Callable[[str], object]) -> AfterValidator:
    """Return a validator that refuses what `check` raises an `InvalidError` for, and changes nothing."""

    def validate(value: Any) -> Any:
        try:
            for address in (value,) if isinstance(value, str) else value:
                check(address)
        except InvalidError as error:
            raise ValueError(error.message) from error
        return value

    return AfterValidator(validate)


def _url_of(*schemes: str, example: str) -> AfterValidator:
    """Return a validator of URLs; its messages leave out the URL, which may hold a password."""

    def check(url: str) -> None:
        scheme, separator, _ = url.partition("://")
        if not separator or scheme not in schemes:
            raise InvalidError(f"it must begin with {schemes[0]}://, such as {example}.")
        try:
            port = urlsplit(url).port
        except ValueError:
            port = 0
        if port == 0:
            raise InvalidError(f"its port must be 1 to 65535, such as in {example}.")

    return _checked(check)


def _listen(address: str) -> None:
    if not address.startswith("unix:"):
        loopback_only(address)


def _target(address: str) -> None:
    if not address.startswith("unix:"):
        split_address(address)


def _reachable(address: str) -> None:
    """Refuse what nobody can connect to: no address, every address of a machine, or a port yet to be chosen."""
    if address.startswith("unix:"):
        return
    host, port = split_address(address)
    if not port or host in {"0.0.0.0", "::"}:  # noqa: S104 - refused here
        raise InvalidError(f"nobody can connect to {address!r}: write host:port, such as scheduler-1.internal:7311.")


CommaList = Annotated[tuple[str, ...], NoDecode, _split_by(",")]
DatabaseUrl = Annotated[
    str,
    _url_of("postgresql", "postgres", "postgresql+asyncpg", example="postgresql://user:password@host:5432/pixloom"),
]
NatsUrl = Annotated[str, _url_of("nats", "tls", "ws", "wss", example="nats://127.0.0.1:4222")]
Listen = Annotated[str, _checked(_listen)]
Target = Annotated[str, _checked(_reachable)]
Addresses = Annotated[CommaList, _checked(_target)]
PathList = Annotated[tuple[Path, ...], NoDecode, _split_by(os.pathsep)]

_LIMIT: Final = re.compile(r"jobs|jobs_per_project|pool\.[a-z][a-z0-9_-]*|op\.[a-z][a-z0-9_]*(\.[a-z0-9_]+)*(@[0-9]+)?")


def _read_limits(value: object) -> object:
    """Return limits by name, from `name=number, …` or from a table of TOML, where dots make tables in tables."""
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(",") if part.strip()]
        pairs = [(name.strip(), number.strip()) for name, _, number in (part.partition("=") for part in parts)]
        return _checked_limits(pairs)
    return _checked_limits(_flat("", value)) if isinstance(value, dict) else value


def _flat(prefix: str, table: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value


def _checked_limits(pairs: Iterable[tuple[str, Any]]) -> dict[str, int]:
    limits: dict[str, int] = {}
    for name, number in pairs:
        if _LIMIT.fullmatch(name) is None:
            raise ValueError(
                f"there is no limit {name!r}: write jobs, jobs_per_project, pool.NAME or op.NAME, such as pool.gpu=1"
            )
        if name in limits:
            raise ValueError(f"{name} is given twice: write it once")
        if isinstance(number, bool) or not str(number).isascii() or not str(number).isdigit() or int(number) < 1:
            raise ValueError(f"{name}={number}: write a whole number from 1 on; leave it out for no limit")
        limits[name] = int(number)
    return limits


Limits = Annotated[dict[str, int], NoDecode, BeforeValidator(_read_limits)]


def _default_artifacts_url() -> str:
    return (Path.cwd() / ".pixloom" / "artifacts").as_uri()


class ProcessSettings(BaseSettings):
    """What every process has."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="ignore", frozen=True, env_ignore_empty=True)

    log_format: Literal["console", "json"] | None = Field(
        default=None, description="How log lines look; console on a terminal and json elsewhere if not given."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level of log lines that are written."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments first, then the environment, then the file."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=_read_file())


class StoreSettings(ProcessSettings):
    """Where bytes lie and which folders may be read and written."""

    artifacts_url: str = Field(
        default_factory=_default_artifacts_url,
        description="Object store of artifacts: file:///…, s3://bucket/prefix, gs://…, az://… or memory://; "
        "the folder .pixloom/artifacts below the working directory if not given.",
    )
    source_roots: PathList = Field(
        default=(), description="Folders that source ops may read, separated like PATH; nothing else is read."
    )
    export_roots: PathList = Field(
        default=(), description="Folders that export ops may write to, separated like PATH; nothing else is written."
    )


class SchedulerSettings(StoreSettings):
    """Settings of the scheduler."""

    database_url: DatabaseUrl = Field(
        default="postgresql://127.0.0.1:5432/pixloom", repr=False, description="PostgreSQL database as a URL."
    )
    nats_url: NatsUrl = Field(default="nats://127.0.0.1:4222", repr=False, description="NATS server as a URL.")
    workflows_dir: Path = Field(
        default=Path("config/workflows"), description="Folder of workflow files that are loaded at start."
    )
    scheduler_listen: Listen = Field(
        default="127.0.0.1:7311", description="Loopback address, host:port, on which the scheduler serves gRPC."
    )
    scheduler_advertise: Target | None = Field(
        default=None,
        description="Address, host:port, at which other schedulers and executors reach this one, such as that of a "
        "proxy in front of it; the address it listens on if not given.",
    )
    limits: Limits = Field(
        default_factory=dict,
        description="What may run at once, as name=number separated by commas: jobs and jobs_per_project (jobs in "
        "flight; others wait), pool.NAME and op.NAME (batches, each in one child process). A table of its own in "
        "pixloom.toml. Several schedulers divide each limit evenly, and each has at least 1; give them all the same. "
        "No limits if not given.",
    )

    @property
    def reachable_at(self) -> str:
        """Address that is told to other schedulers and to executors."""
        return self.scheduler_advertise or self.scheduler_listen


class ExecutorSettings(StoreSettings):
    """Settings of an executor."""

    nats_url: NatsUrl = Field(default="nats://127.0.0.1:4222", repr=False, description="NATS server as a URL.")
    scheduler_addresses: Addresses = Field(
        default=("127.0.0.1:7311",), min_length=1, description="Schedulers as host:port, separated by commas."
    )
    executor_pools: CommaList = Field(
        default=("cpu", "net"), min_length=1, description="Pools that the executor serves, separated by commas."
    )
    executor_slots: int = Field(
        default=0, ge=0, le=1024, description="Child processes that run ops; 0 means one per core."
    )
    executor_imports: CommaList = Field(
        default=(), description="Python modules with ops of your own, separated by commas."
    )


class GatewaySettings(StoreSettings):
    """Settings of the gateway."""

    scheduler_addresses: Addresses = Field(
        default=("127.0.0.1:7311",), min_length=1, description="Schedulers as host:port, separated by commas."
    )
    gateway_http_listen: Listen = Field(
        default="127.0.0.1:7300", description="Loopback address, host:port, on which the gateway serves REST."
    )
    gateway_grpc_listen: Listen = Field(
        default="127.0.0.1:7301", description="Loopback address, host:port, on which the gateway serves gRPC."
    )


class ClientSettings(ProcessSettings):
    """Settings of the command line and the Python client."""

    server: str = Field(default="127.0.0.1:7301", description="gRPC address of the gateway, host:port.")


ALL_SETTINGS: Final[tuple[type[ProcessSettings], ...]] = (
    SchedulerSettings,
    ExecutorSettings,
    GatewaySettings,
    ClientSettings,
)

S = TypeVar("S", bound=ProcessSettings)


def load_settings(cls: type[S], **overrides: Any) -> S:
    """Read the settings of a process.

    Args:
        cls: The class of the process.
        overrides: Values that win over environment and file, such as those given on the command line; None is ignored.

    Returns:
        The settings, checked.

    Raises:
        InvalidError: If a value or a key of `pixloom.toml` is not valid; it names the variable and the remedy.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return cls(**given)
    except ValidationError as error:
        problems = tuple(_problem_from(entry["loc"], entry["msg"]) for entry in error.errors(include_url=False))
        lines = "; ".join(problem.detail for problem in problems)
        raise InvalidError(f"The settings are not valid: {lines}", problems=problems) from error


def _problem_from(location: tuple[int | str, ...], message: str) -> Problem:
    field = str(location[0]) if location else ""
    variable = f"{ENV_PREFIX}{field.upper()}"
    said = message.removeprefix("Value error, ")
    return Problem(pointer="/" + "/".join(map(str, location)), detail=f"{variable} (or {field} in {FILE_NAME}): {said}")


def _read_file() -> dict[str, Any]:
    """Return the contents of `pixloom.toml` in the working directory, or nothing if there is none."""
    path = Path(FILE_NAME)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidError(f"{FILE_NAME} is not valid TOML: {error}. Mend it or move it away.") from error
    except OSError as error:
        raise MachineError(f"{FILE_NAME} cannot be read: {error.strerror}. Check its permissions.") from error
    known = sorted({name for cls in ALL_SETTINGS for name in cls.model_fields})
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(known)}."
            raise InvalidError(
                f"{FILE_NAME} has the unknown key {key}: {hint}", problems=(Problem(f"/{key}", f"Unknown key; {hint}"),)
            )
    return content


def split_address(address: str) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`.

    Args:
        address: The address; the port may be 0 to 65535.

    Returns:
        Host without brackets, and port.

    Raises:
        InvalidError: If it is anything else.
    """
    host, colon, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidError(f"{address!r} is no address: write host:port, such as 127.0.0.1:7300.")
    if ":" in bare and bare == host:
        raise InvalidError(f"{address!r} is no address: write an IPv6 host in brackets, such as [::1]:7300.")
    return bare, int(port)


def loopback_only(listen: str) -> tuple[str, int]:
    """Return host and port of a listen address that only this machine can reach.

    There are no keys yet that tell callers apart, so a part that listens on the network would serve anybody.

    Args:
        listen: `host:port`; the host `localhost` or a loopback literal.

    Returns:
        Host and port; `localhost` becomes 127.0.0.1, because a name may resolve to anything.

    Raises:
        InvalidError: If it is no address or not a loopback one.
    """
    host, port = split_address(listen)
    if host == "localhost":
        return "127.0.0.1", port
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise InvalidError(
            f"Pixloom does not listen on {listen}: until it has keys, every part binds loopback only. "
            f"Use 127.0.0.1:{port} and put a proxy that authenticates in front of it."
        )
    return host, port
