"""What lies in deploy/ fits the repository: no container engine is needed to see that."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import jsonschema
import pytest
import yaml

from pixloom.settings import ExecutorSettings, GatewaySettings, SchedulerSettings, loopback_only

if TYPE_CHECKING:
    from pixloom.settings import ProcessSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
OURS = ("scheduler", "executor", "gateway")
SETTINGS: dict[str, type[ProcessSettings]] = {
    "migrate": SchedulerSettings,
    "scheduler": SchedulerSettings,
    "executor-1": ExecutorSettings,
    "executor-2": ExecutorSettings,
    "gateway": GatewaySettings,
}
STANDARD = re.compile(r"OTEL_[A-Z_]+")

STRINGS = {"type": "array", "items": {"type": "string"}}
SCHEMA = {
    "type": "object",
    "required": ["name", "services", "volumes"],
    "properties": {
        "name": {"type": "string"},
        "volumes": {"type": "object", "additionalProperties": {"type": "object", "maxProperties": 0}},
        "services": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["image", "user", "read_only", "cap_drop", "security_opt", "restart"],
                "additionalProperties": False,
                "properties": {
                    "image": {"type": "string"},
                    "build": {
                        "type": "object",
                        "required": ["context", "dockerfile"],
                        "additionalProperties": False,
                        "properties": {"context": {"type": "string"}, "dockerfile": {"type": "string"}},
                    },
                    "user": {"type": "string", "pattern": r"^[1-9]\d*:[1-9]\d*$"},
                    "read_only": {"const": True},
                    "cap_drop": {"const": ["ALL"]},
                    "security_opt": {"const": ["no-new-privileges:true"]},
                    "restart": {"enum": ["unless-stopped", "on-failure"]},
                    "network_mode": {"const": "host"},
                    "init": {"type": "boolean"},
                    "stop_grace_period": {"type": "string", "pattern": r"^\d+s$"},
                    "stop_signal": {"type": "string"},
                    "shm_size": {"type": "string"},
                    "environment": {"type": "object", "additionalProperties": {"type": "string"}},
                    "command": STRINGS,
                    "ports": STRINGS,
                    "volumes": STRINGS,
                    "tmpfs": STRINGS,
                    "healthcheck": {
                        "type": "object",
                        "required": ["test", "interval", "timeout", "retries"],
                        "additionalProperties": False,
                        "properties": {
                            "test": STRINGS,
                            "interval": {"type": "string", "pattern": r"^\d+s$"},
                            "timeout": {"type": "string", "pattern": r"^\d+s$"},
                            "retries": {"type": "integer", "minimum": 1},
                        },
                    },
                    "depends_on": {
                        "type": "object",
                        "additionalProperties": {
                            "type": "object",
                            "required": ["condition"],
                            "additionalProperties": False,
                            "properties": {
                                "condition": {"enum": ["service_healthy", "service_completed_successfully"]}
                            },
                        },
                    },
                },
            },
        },
    },
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    return document


def instructions_of(service: str) -> list[tuple[str, list[str]]]:
    text = (DEPLOY / f"{service}.Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest.split()) for word, _, rest in (line.partition(" ") for line in lines)]


def test_compose_file_has_the_shape_of_one_and_every_container_is_confined(compose: dict[str, Any]) -> None:
    jsonschema.validate(compose, SCHEMA)
    assert set(compose["services"]) == {"postgres", "nats", *SETTINGS}


def test_what_a_service_depends_on_exists_and_can_become_so(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        for other, wanted in service.get("depends_on", {}).items():
            assert other in services, (name, other)
            if wanted["condition"] == "service_healthy":
                assert "healthcheck" in services[other], (name, other)
            else:
                assert services[other]["restart"] == "on-failure", (name, other)


def test_every_variable_is_a_setting_of_the_service_that_gets_it(compose: dict[str, Any]) -> None:
    for name, cls in SETTINGS.items():
        known = {f"PIXLOOM_{field.upper()}" for field in cls.model_fields}
        given = set(compose["services"][name]["environment"])
        assert {variable for variable in given if not STANDARD.fullmatch(variable)} <= known, name


def test_the_values_are_accepted_as_settings(compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, cls in SETTINGS.items():
        with monkeypatch.context() as patched:
            for variable, value in compose["services"][name]["environment"].items():
                patched.setenv(variable, re.sub(r"\$\{\w+:?-?([^}]*)\}", r"\1", value))
            settings = cls()
            for field in ("scheduler_listen", "gateway_http_listen", "gateway_grpc_listen"):
                if hasattr(settings, field):
                    loopback_only(getattr(settings, field))


def test_only_loopback_ports_are_published_and_the_parts_meet_there(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), (name, port)
    published = {port.split(":")[1] for service in services.values() for port in service.get("ports", [])}
    listened = {
        value.rpartition(":")[2]
        for service in services.values()
        for key, value in service.get("environment", {}).items()
        if key.endswith("_LISTEN")
    }
    assert not published & listened
    environment = services["scheduler"]["environment"]
    assert f"@127.0.0.1:{services['postgres']['ports'][0].split(':')[1]}/" in environment["PIXLOOM_DATABASE_URL"]
    assert environment["PIXLOOM_NATS_URL"].endswith(services["nats"]["ports"][0].split(":")[1])
    for name in ("executor-1", "executor-2", "gateway"):
        assert services[name]["environment"]["PIXLOOM_SCHEDULER_ADDRESSES"] == environment["PIXLOOM_SCHEDULER_LISTEN"]
    # Executors drop what they were told for what the scheduler says of itself.
    advertised = environment["PIXLOOM_SCHEDULER_ADVERTISE"]
    assert advertised == f"${{PIXLOOM_SCHEDULER_ADVERTISE:-{environment['PIXLOOM_SCHEDULER_LISTEN']}}}"


def test_secrets_come_from_outside_and_only_to_those_who_need_them(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        text = yaml.safe_dump(service)
        assert ("POSTGRES_PASSWORD" in text) == (name in {"postgres", "migrate", "scheduler"}), name
        assert ("NATS_PASSWORD" in text) == (name in {"nats", "scheduler", "executor-1", "executor-2"}), name
        assert "PASSWORD" not in " ".join(service.get("command", [])), name


def test_the_nats_server_reads_its_configuration_whatever_the_password_looks_like(compose: dict[str, Any]) -> None:
    given = compose["services"]["nats"]["environment"]["NATS_PASSWORD"]
    program = Path(sysconfig.get_path("scripts")) / "nats-server"
    for password in ("12e5", "10k", "true", "0x1f", "abc"):
        env = {"NATS_PASSWORD": re.sub(r"\$\{[^}]*\}", password, given)}
        words: list[str | Path] = [program, "-t", "-c", DEPLOY / "nats.conf"]
        shown = subprocess.run(words, env=env, capture_output=True, text=True, timeout=20, check=False)
        assert "configuration file" in shown.stderr, shown.stderr
        assert shown.returncode == 0, shown.stderr


def test_volumes_are_declared_and_files_exist(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (DEPLOY / source).is_file(), (name, source)
            elif not volume.startswith("${"):
                assert source in compose["volumes"], (name, source)
        if "build" in service:
            context = DEPLOY / service["build"]["context"]
            assert (context / service["build"]["dockerfile"]).is_file(), name


@pytest.mark.parametrize("service", OURS)
def test_everything_that_an_image_copies_exists(service: str) -> None:
    for word, rest in instructions_of(service):
        if word == "COPY" and not rest[0].startswith("--from="):
            for source in rest[:-1]:
                assert (ROOT / source).exists(), source


@pytest.mark.parametrize("service", OURS)
def test_an_image_installs_by_hash_and_holds_only_its_service(service: str) -> None:
    commands = [" ".join(rest) for word, rest in instructions_of(service) if word == "RUN"]
    installs = [command for command in " && ".join(commands).split(" && ") if command.strip().startswith("pip install")]
    locked = {words[words.index("-r") + 1] for words in map(shlex.split, installs) if "-r" in words}
    assert locked == {"requirements/build.lock", f"requirements/{service}.lock"}
    for install in installs:
        assert "--no-deps" in install
        assert "--no-build-isolation" in install
        assert ("--require-hashes --only-binary :all:" in install) == ("-r" in install)
    removed = set(re.findall(r'"\$SITE/pixloom_(\w+)"', " ".join(commands)))
    assert removed == set(OURS) - {service}


@pytest.mark.parametrize("service", OURS)
def test_an_image_runs_its_module_as_a_user_without_rights(service: str) -> None:
    instructions = instructions_of(service)
    last = dict(instructions)
    assert last["USER"] == ["10001:10001"]
    assert ast.literal_eval(" ".join(last["CMD"])) == ["python", "-m", f"pixloom_{service}"]
    assert (ROOT / "services" / service / f"pixloom_{service}").is_dir()
    assert [rest[0] for word, rest in instructions if word == "FROM"] == ["python:3.11-slim"] * 2


def test_no_image_names_a_host() -> None:
    for path in DEPLOY.iterdir():
        for image in re.findall(r"^(?:FROM|\s+image:)\s+(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert "/" not in image, (path.name, image)


async def test_the_migration_of_the_compose_file_migrates(compose: dict[str, Any], database_url: str) -> None:
    python, *arguments = compose["services"]["migrate"]["command"]
    assert python == "python"
    environment = {**os.environ, "PIXLOOM_DATABASE_URL": database_url}
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=environment, cwd=ROOT)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT to_regclass('pixloom.job') IS NOT NULL")
    await connection.close()
