"""The settings: read once from the environment, validated, then passed on. Nothing reads the environment later."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal
from uuid import UUID

import pydantic
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from adapters.lm import LMAlias
from dspex.amqp.url import login_of, url_problem
from dspex.blobs.address import checked_address
from dspex.blobs.store import MAX_BYTES
from dspex.blobs.values import THRESHOLD_BYTES
from dspex.contract.callback import WebhookSecretName
from dspex.contract.configuration import AdapterType, EnvironmentName
from dspex.contract.envelope import MAX_MESSAGE_BYTES
from dspex.contract.options import Lane
from dspex.errors import InvalidBlob, Problem, SettingsError
from dspex.json_text import NotJson, read_json
from dspex.model import problems
from dspex.signatures.media import MAX_BYTES as MAX_ATTACHED_BYTES
from dspex.text import masked
from workers.attachments.hosts import Hosts
from workers.brokers.topology import QueueType
from workers.environment import PREFIX, look_over
from workers.security.authorization import Role
from workers.webhooks.addresses import Guard
from workers.webhooks.schedule import DELAYS

ACCEPTED_AHEAD = 256
"""How many executions are taken from the broker ahead at least, however few threads there are: no thread has them
before they are rows, and one transaction writes many down."""
MODULE_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
SECRET_NAME = re.compile(r"[A-Z][A-Z0-9_]*_(API_KEY|(?<!_WEBHOOK_)TOKEN)")
"""The names of secrets that a program may use: never, for instance, the variable with the database's password."""
TENANT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""A single word of a routing key, because topic permissions separate tenants by it."""
WEBHOOK_SECRET_NAME = re.compile(r"[A-Z][A-Z0-9_]*_WEBHOOK_(SECRET|TOKEN)")
"""The names of secrets that a callback, but no program, may use: see `dspex.contract.callback.WebhookSecretName`."""


def _database_url(value: str) -> str:
    try:
        url = make_url(value)
        if "@" in (url.host or ""):
            raise ValueError(url.host)
    except (ArgumentError, ValueError):  # not passed on: the reason may quote parts of the password
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
    if not re.match(r"amqps?://[^/]", value):
        raise ValueError("use memory:// (this process alone) or amqp://user:password@host:5672/")
    problem = url_problem(value)
    if problem is not None:
        raise ValueError(problem)
    return value


def _address(value: str) -> str:
    if re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):[0-9]{1,5}", value):
        return value
    raise ValueError("is not host:port: use 127.0.0.1:9464")


def _blobs(value: str) -> str:
    if value == "memory://":
        raise ValueError("is of this process alone: use a folder or s3://")
    try:
        return checked_address(value)
    except InvalidBlob as error:
        raise ValueError(error.message) from None


def _redis_url(value: str) -> str:
    if re.match(r"(rediss?://[^/]|unix://)", value):
        return value
    raise ValueError("use redis://host:6379/0")


def _listed(example: str) -> tuple[type[NoDecode], BeforeValidator]:
    """Accept `a, b` or a JSON list."""

    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if not value.lstrip().startswith("["):
            return [item.strip() for item in value.split(",")]
        try:
            return read_json(value)
        except NotJson:
            raise ValueError(f"is not valid JSON: use {example}") from None

    return NoDecode, BeforeValidator(read)


def _pairs(value: Any) -> Any:
    """Accept `name=path, name=path` or a JSON object."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        try:
            return read_json(value)
        except NotJson:
            raise ValueError("is not valid JSON: use rag=/opt/rag/bin/python") from None
    pairs = [item.partition("=") for item in value.split(",")]
    names = [name.strip() for name, _, _ in pairs]
    if len(set(names)) < len(names) or not all(path.strip() for _, _, path in pairs):
        raise ValueError("is not name=path, each name once: use rag=/opt/rag/bin/python,judge=/opt/judge/bin/python")
    return {name: path.strip() for name, (_, _, path) in zip(names, pairs, strict=True)}


def _python(value: str) -> str:
    if value.startswith("/"):
        return value
    raise ValueError("is not the absolute path of a Python: use /opt/rag/bin/python")


def _module(value: str) -> str:
    path, colon, name = value.partition(":")
    if MODULE_NAME.fullmatch(path) and (not colon or name == "*" or (name.isascii() and name.isidentifier())):
        return value
    raise ValueError(
        "is not a dotted module name, nor package.module:Class: use for instance acme.signatures,acme.programs:RAG"
    )


Port = Annotated[int, Field(ge=1, le=65_535)]
Seconds = Annotated[float, Field(ge=0, le=30 * 86_400, allow_inf_nan=False)]


def _tenant(value: str) -> str:
    if TENANT_NAME.fullmatch(value):
        return value
    raise ValueError(f"{value[:100]!r} cannot be a tenant: use 1 to 64 letters, digits, '_' or '-', the first no sign")


def _secret_name(value: str) -> str:
    if SECRET_NAME.fullmatch(value):
        return value
    raise ValueError("is not the name of a secret of LMs: it ends in _API_KEY or _TOKEN")


def _proxy(value: str) -> str:
    if re.fullmatch(r"http://[A-Za-z0-9.\[\]:_-]+:[0-9]{1,5}/?", value):
        return value
    raise ValueError("is not http://host:port")


Tenant = Annotated[str, AfterValidator(_tenant)]


class PrincipalSetting(BaseModel):
    """The tenant and the roles of a broker login. The role `system` is only for the workers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: Tenant
    roles: tuple[Literal[Role.ADMIN, Role.OPERATOR, Role.PRODUCER, Role.VIEWER], ...]


class Settings(BaseSettings):
    """All settings with their defaults. The variable of a setting is `DSPEX_` and its name in capitals."""

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
    threads: int = Field(default=64, ge=1, le=4096)
    """Executions that one process runs at once."""
    serve_lanes: Annotated[tuple[Lane, ...], *_listed("high,default")] = ()
    """The lanes that a worker runs; by default all, as of the three that follow. Others run the rest."""
    serve_programs: Annotated[tuple[UUID, ...], *_listed("0190f6a0-0000-7000-8000-000000000000")] = ()
    """The programs that a worker runs, by id."""
    serve_adapters: Annotated[tuple[AdapterType, ...], *_listed("native,mock")] = ()
    """The adapters whose programs a worker runs."""
    serve_environments: Annotated[
        tuple[Annotated[str, Field(pattern=r"^([a-z][a-z0-9_-]*|-)$", max_length=64)], ...], *_listed("rag,-")
    ] = ()
    """The environments whose programs a worker runs, of `DSPEX_ENVIRONMENTS`; `-`: what names none."""
    prefetch: int | None = Field(default=None, ge=1, le=65_535)
    """Messages that one process takes from a queue ahead; by default as its threads, and of executions at least
    `ACCEPTED_AHEAD`."""

    lease_seconds: float = Field(default=30, ge=1, le=3600)
    """How long a claim holds without a heartbeat; then another worker runs the execution again."""
    max_attempts: int = Field(default=3, ge=1, le=100)
    """How often an execution may be started before it fails with `attempts_exhausted`."""
    shutdown_seconds: float = Field(default=30, ge=0, le=86_400)
    """How long running executions may take to end after SIGTERM; then they are given back."""
    max_message_bytes: int = Field(default=MAX_MESSAGE_BYTES, ge=1024, le=64 * 1024 * 1024)
    """The size cap of a message, and of an execution's outputs."""

    blobs: Annotated[str, AfterValidator(_blobs)] | None = None
    """The blob store: the path of a folder, `file:///…`, or `s3://bucket/prefix?endpoint=…&region=…`."""
    blob_max_bytes: int = Field(default=MAX_BYTES, ge=1024, le=5 * 1024**3)
    """The size cap of a blob, and of all that an execution's inputs have."""
    blob_threshold: int = Field(default=THRESHOLD_BYTES, ge=1024, le=64 * 1024 * 1024)
    """The size from which on an input or output goes to the blob store, if there is one."""
    blob_days: float = Field(default=7, ge=0.1, le=3650)
    """How many days a blob is kept that no execution refers to."""

    fetch_hosts: Annotated[tuple[str, ...], *_listed("images.example.com")] = ()
    """Where images, audio and files of inputs may be fetched from: `*` (any public address), `host`, `host:port`."""
    fetch_timeout: float = Field(default=20, ge=1, le=300)
    """Seconds for what one execution fetches, all in all."""
    fetch_max_bytes: int = Field(default=10 * 1024 * 1024, ge=1024, le=MAX_ATTACHED_BYTES)
    """The most bytes that are fetched, or read from blobs, for one execution's images, audio and files."""

    lms: dict[str, LMAlias] = Field(default_factory=dict)
    """LMs by alias, as JSON: `{"fast": {"model": "openai/gpt-4o-mini", "api_base": "https://…", "secret": "NAME"}}`."""
    lm_secrets: dict[Tenant, tuple[Annotated[str, AfterValidator(_secret_name)], ...]] = Field(default_factory=dict)
    """The names of secrets that a tenant's programs may use, as JSON, where there are tenants."""
    limits: dict[str, dict[str, int]] = Field(default_factory=dict)
    """How much may run at once, or begin within a minute, as JSON: `{"lm:fast": {"in_flight": 40}}`. An operator's word
    comes before it.
    """
    lm_proxy: Annotated[str, AfterValidator(_proxy)] | None = None
    """`http://host:port`, by which LMs are called: the environment's own proxies are not looked at."""
    modules: Annotated[
        tuple[Annotated[str, AfterValidator(_module)], ...], *_listed("acme.signatures,acme.programs:RAG")
    ] = ()
    """What a message may have imported. `acme` is a prefix under which signatures may be read, of `acme.signatures`
    too. `acme.programs:RAG` is a module that programs may run; `acme.programs:*` allows all of that file.
    """
    environments: Annotated[
        dict[EnvironmentName, Annotated[str, AfterValidator(_python)]], NoDecode, BeforeValidator(_pairs)
    ] = Field(default_factory=dict)
    """The Pythons that programs of `python_port` may name, each of a virtual environment: `rag=/opt/rag/bin/python`."""
    tenancy: bool = False
    """Whether messages belong to the tenant of their login, and roles decide; else there is one tenant."""
    principals: dict[str, PrincipalSetting] = Field(default_factory=dict)
    """Tenant and roles by broker login, as JSON: `{"orders": {"tenant": "acme", "roles": ["producer"]}}`."""

    metrics_address: Annotated[str, AfterValidator(_address)] | None = None
    """`host:port` where a process serves its metrics to Prometheus; process n of several takes the port + n."""
    webhook_threads: int = Field(default=16, ge=0, le=256)
    """Webhooks sent at once by the deliverer of this machine; 0: it sends none."""
    webhook_timeout: float = Field(default=20, ge=1, le=60)
    """Seconds for one attempt to deliver, all in all."""
    webhook_retries: Annotated[tuple[Seconds, ...], Field(min_length=1, max_length=50), *_listed("0,5,300")] = DELAYS
    """Seconds before each attempt, the first one too: as many attempts as there are numbers."""
    webhook_ports: Annotated[tuple[Port, ...], *_listed("443,8443")] = (443,)
    """Where webhooks may go to on public addresses."""
    webhook_hosts: Annotated[tuple[str, ...], *_listed("receiver.internal:8080")] = ()
    """`host:port` of receivers that may have private addresses and be spoken to by http."""
    webhook_secrets: dict[Tenant, tuple[WebhookSecretName, ...]] = Field(default_factory=dict)
    """The names of secrets that a tenant's callbacks may use, as JSON, where there are tenants."""

    webhook_secret_hosts: dict[WebhookSecretName, tuple[str, ...]] = Field(default_factory=dict)
    """Where the value of a secret may go to, `host` or `host:port`, as JSON; what is not in it, anywhere."""

    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"

    @field_validator("principals")
    @classmethod
    def _logins(
        cls, principals: dict[str, PrincipalSetting], info: pydantic.ValidationInfo
    ) -> dict[str, PrincipalSetting]:
        url = info.data.get("broker_url", "memory://")
        own = None if url == "memory://" else login_of(url)
        if own in principals:
            raise ValueError(
                f"'{own}' is the workers' own login (DSPEX_BROKER_URL), which may act for every tenant: "
                "give each of its other users another login"
            )
        for login in principals:
            other = next((other for other in principals if other.startswith(f"{login}.")), None)
            if other is not None:
                raise ValueError(f"'{other}' begins with '{login}.', as the queues of '{login}' do: rename one of them")
        return principals

    @field_validator("fetch_hosts")
    @classmethod
    def _hosts_to_fetch_from(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        Hosts(hosts)  # raises if one is invalid
        return hosts

    @field_validator("webhook_hosts")
    @classmethod
    def _host_and_port(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        Guard(hosts=hosts)  # raises if one is invalid
        return hosts

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, masked(value) if isinstance(value, str) else value

    @property
    def signature_modules(self) -> tuple[str, ...]:
        """The prefixes under which signatures may be read."""
        return tuple(name for name in self.modules if ":" not in name)

    @property
    def own_modules(self) -> tuple[str, ...]:
        """The modules that programs may run: `package.module:Class` or `package.module:*`."""
        return tuple(name for name in self.modules if ":" in name)

    @property
    def served(self) -> dict[str, tuple[str, ...]]:
        """What a worker runs, by kind; what is not in it is not restricted. An embedded process runs everything."""
        given = {name: getattr(self, f"serve_{name}") for name in ("lanes", "programs", "adapters", "environments")}
        return {name: tuple(map(str, some)) for name, some in given.items() if some and not self.embedded}

    @property
    def embedded(self) -> bool:
        """Whether messages stay in this process."""
        return self.broker_url == "memory://"

    @property
    def broker_login(self) -> str | None:
        """The workers' own login on the broker; None: messages stay in this process."""
        return None if self.embedded else login_of(self.broker_url)

    @property
    def metrics_addresses(self) -> list[str]:
        """`host:port` of each process; empty if metrics are not served."""
        if self.metrics_address is None:
            return []
        host, _, port = self.metrics_address.rpartition(":")
        return [f"{host}:{int(port) + number}" for number in range(self.processes)]

    @property
    def prefetch_count(self) -> int:
        """How many messages one process prefetches from a queue."""
        return self.prefetch or self.threads

    @property
    def accepted_ahead(self) -> int:
        """How many executions one process prefetches."""
        return self.prefetch or max(self.threads, ACCEPTED_AHEAD)


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment; arguments other than None override them.

    Raises:
        SettingsError: values are invalid or variables are misspelt. The text has a line for each.
    """
    look_over(os.environ, [PREFIX + name.upper() for name in Settings.model_fields])
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except pydantic.ValidationError as error:
        raise SettingsError("\n".join(map(_line, problems(error)))) from None
    except pydantic.PydanticUserError:
        raise
    except (ValueError, RecursionError) as error:  # raised by pydantic-settings for a value that is not valid JSON
        named = re.search(r'field "(\w+)"', str(error))
        raise SettingsError(f"{PREFIX}{named[1].upper() if named else 'settings'}: is not valid JSON") from None


def _line(problem: Problem) -> str:
    name, _, path = problem.field.partition(".")
    return f"{PREFIX}{name.upper()}: {Problem(path, problem.message)}"


def load_secrets() -> dict[str, str]:
    """The secrets for programs by name: variables that end in _API_KEY or _TOKEN, except those for webhooks."""
    return _named(SECRET_NAME)


def load_webhook_secrets() -> dict[str, str]:
    """The secrets for webhooks by name: variables that end in _WEBHOOK_SECRET or _WEBHOOK_TOKEN."""
    return _named(WEBHOOK_SECRET_NAME)


def _named(names: re.Pattern[str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if names.fullmatch(name) and value}
