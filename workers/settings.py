"""The settings: read from the environment once, validated, then passed. Nothing reads the environment later."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
from pika import URLParameters
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from adapters.lm import LMAlias
from dspex.envelope import MAX_MESSAGE_BYTES
from dspex.errors import Problem, SettingsError
from dspex.model import problems
from workers.brokers.topology import QueueType
from workers.policy import Role

PREFIX = "DSPEX_"
MODULE_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
SECRET_NAME = re.compile(r"[A-Z][A-Z0-9_]*_(API_KEY|TOKEN)")
"""What a message may name as a secret: never, for instance, the variable that holds the database's password."""


def _database_url(value: str) -> str:
    try:
        url = make_url(value)
        if "@" in (url.host or ""):
            raise ValueError(url.host)
    except (ArgumentError, ValueError):  # the reason may quote parts of the password: it is not passed on
        raise ValueError(
            "is not a URL: use postgresql://user:password@host/name, with special characters percent-encoded, "
            "or sqlite:///file"
        ) from None
    if url.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    if url.drivername == "sqlite" and url.database and ":memory:" not in url.database and "mode" not in url.query:
        return value
    raise ValueError("is of another database: use postgresql://user:password@host/name or sqlite:///file")


def _broker_url(value: str) -> str:
    if value == "memory://":
        return value
    try:
        if re.match(r"amqps?://[^/]", value):
            URLParameters(value)
            return value
    except (ValueError, TypeError):  # the reason may quote parts of the password: it is not passed on
        raise ValueError(
            "is not a URL: use amqp://user:password@host:5672/, with special characters percent-encoded"
        ) from None
    raise ValueError("use memory:// (this process alone) or amqp://user:password@host:5672/")


def _address(value: str) -> str:
    if re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):[0-9]{1,5}", value):
        return value
    raise ValueError("is not host:port: use 127.0.0.1:9464")


def _redis_url(value: str) -> str:
    if re.match(r"(rediss?://[^/]|unix://)", value):
        return value
    raise ValueError("use redis://host:6379/0")


def _modules(value: Any) -> Any:
    """`a.b, c.d`, or a JSON list."""
    if not isinstance(value, str):
        return value
    if not value.lstrip().startswith("["):
        return [prefix.strip() for prefix in value.split(",")]
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("is not valid JSON: use acme.signatures,acme.shared") from None


def _dotted(value: str) -> str:
    if MODULE_NAME.fullmatch(value):
        return value
    raise ValueError("is not a dotted module name: use for instance acme.signatures,acme.shared")


class PrincipalSetting(BaseModel):
    """What a broker login may see and do. The role `system` is the workers' own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    roles: tuple[Literal[Role.ADMIN, Role.OPERATOR, Role.PRODUCER, Role.VIEWER], ...]


class Settings(BaseSettings):
    """Every setting, with its default. Each is read from the environment as `DSPEX_` and its name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True, env_ignore_empty=True
    )

    database_url: Annotated[str, AfterValidator(_database_url)] = "sqlite:///dspex.db"
    """`sqlite:///file` (one machine) or `postgresql://…`."""
    broker_url: Annotated[str, AfterValidator(_broker_url)] = "memory://"
    """`memory://` (this process alone) or `amqp://…` (RabbitMQ)."""
    redis_url: Annotated[str, AfterValidator(_redis_url)] | None = None
    """Optional; nothing is lost without it."""
    queue_type: QueueType = "classic"
    """RabbitMQ's queues: `classic` lives on one node, `quorum` on the majority of a cluster, for production."""

    processes: int = Field(default=1, ge=1, le=256)
    """Worker processes that `dspex worker` starts."""
    threads: int = Field(default=64, ge=1, le=1024)
    """Executions that one process runs at once."""
    prefetch: int | None = Field(default=None, ge=1, le=65_535)
    """Messages that one process takes from a queue ahead; as many as its threads by default."""

    lease_seconds: float = Field(default=30, ge=1, le=3600)
    """How long a claim holds without a heartbeat; then another worker runs the execution again."""
    max_attempts: int = Field(default=3, ge=1, le=100)
    """How often an execution may be started before it fails with `attempts_exhausted`."""
    shutdown_seconds: float = Field(default=30, ge=0, le=86_400)
    """How long running executions may take to end after SIGTERM; then they are given back."""
    max_message_bytes: int = Field(default=MAX_MESSAGE_BYTES, ge=1024, le=64 * 1024 * 1024)
    """The size cap of a message, and of an execution's outputs."""

    lms: dict[str, LMAlias] = Field(default_factory=dict)
    """LMs by alias, as JSON: `{"fast": {"model": "openai/gpt-4o-mini", "api_base": "https://…", "secret": "NAME"}}`."""
    modules: Annotated[tuple[Annotated[str, AfterValidator(_dotted)], ...], NoDecode, BeforeValidator(_modules)] = ()
    """Import prefixes under which a message may have signatures read; `acme` allows `acme.signatures` too."""
    tenancy: bool = False
    """Whether messages belong to the tenant of their login, and roles decide; else there is one tenant."""
    principals: dict[str, PrincipalSetting] = Field(default_factory=dict)
    """Tenant and roles by broker login, as JSON: `{"orders": {"tenant": "acme", "roles": ["producer"]}}`."""

    metrics_address: Annotated[str, AfterValidator(_address)] | None = None
    """`host:port` where a process serves its metrics to Prometheus; process n of several takes the port + n."""
    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"

    @property
    def embedded(self) -> bool:
        """Whether messages stay in this process."""
        return self.broker_url == "memory://"

    @property
    def metrics_addresses(self) -> list[str]:
        """`host:port` of each process; none where metrics are not served."""
        if self.metrics_address is None:
            return []
        host, _, port = self.metrics_address.rpartition(":")
        return [f"{host}:{int(port) + number}" for number in range(self.processes)]

    @property
    def prefetch_count(self) -> int:
        """Messages that one process takes from a queue ahead."""
        return self.prefetch or self.threads


def load_settings(**overrides: Any) -> Settings:
    """The settings from the environment, and what overrides them (None does not).

    Raises:
        SettingsError: one line for each wrong value, with the name of its variable.
    """
    _refuse_unknown(os.environ)
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except pydantic.ValidationError as error:
        raise SettingsError("\n".join(map(_line, problems(error)))) from None
    except pydantic.PydanticUserError:
        raise
    except ValueError as error:  # pydantic-settings: a value that should be JSON and is not
        named = re.search(r'field "(\w+)"', str(error))
        raise SettingsError(f"{PREFIX}{named[1].upper() if named else 'settings'}: is not valid JSON") from None


def _line(problem: Problem) -> str:
    name, _, path = problem.field.partition(".")
    return f"{PREFIX}{name.upper()}: {Problem(path, problem.message)}"


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in environment:
        if name.startswith(PREFIX) and not name.startswith(PREFIX + "TEST_") and name not in known:
            raise SettingsError(f"{name}: there is no such setting; known are {', '.join(sorted(known))}")


def load_secrets() -> dict[str, str]:
    """The secrets by name: the variables of the environment that end in _API_KEY or _TOKEN."""
    return {name: value for name, value in os.environ.items() if SECRET_NAME.fullmatch(name) and value}
