"""Settings: defaults, URLs, and a line for each wrong value that names its variable and shows no password."""

import json
import os

import pytest

from adapters.lm import LMAlias
from dspex.errors import SettingsError
from workers.settings import Settings, load_secrets, load_settings, load_webhook_secrets


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("DSPEX_"):
            monkeypatch.delenv(name)


def refused(monkeypatch: pytest.MonkeyPatch, **environment: str) -> list[str]:
    """The lines of the error."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return caught.value.message.splitlines()


def test_defaults_need_no_server() -> None:
    settings = load_settings()
    assert settings == Settings()
    assert settings.database_url == "sqlite:///dspex.db"
    assert settings.broker_url == "memory://"
    assert settings.embedded
    assert settings.redis_url is None
    assert settings.processes == 1
    assert settings.prefetch_count == settings.threads
    assert settings.max_message_bytes == 1024 * 1024
    assert settings.lms == {}


def test_every_setting_comes_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "database_url": "postgresql+psycopg://user:pass@host/name",
        "broker_url": "amqp://user:pass@host:5672/vhost",
        "redis_url": "redis://host:6379/0",
        "queue_type": "quorum",
        "processes": 2,
        "threads": 3,
        "prefetch": 4,
        "lease_seconds": 5.5,
        "max_attempts": 6,
        "shutdown_seconds": 0.0,
        "max_message_bytes": 2048,
        "tenancy": True,
        "blobs": "s3://bucket/prefix?endpoint=https://minio:9000",
        "blob_max_bytes": 5000,
        "blob_threshold": 2000,
        "fetch_timeout": 12.5,
        "fetch_max_bytes": 4096,
        "blob_days": 0.5,
        "lm_proxy": "http://127.0.0.1:3128",
        "metrics_address": "127.0.0.1:9464",
        "webhook_threads": 0,
        "webhook_timeout": 15.5,
        "log_level": "DEBUG",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"DSPEX_{name.upper()}", str(value))
    settings = load_settings()
    webhooks = {f"webhook_{name}" for name in ("retries", "ports", "hosts", "secrets", "secret_hosts")}
    serves = {"serve_lanes", "serve_programs", "serve_adapters", "serve_environments"}
    lists = {*serves, "fetch_hosts", "lms", "limits", "lm_secrets", "modules", "environments", "principals", *webhooks}
    assert settings.model_dump(exclude=lists) == given
    assert {*given, *lists} == set(Settings.model_fields)
    assert not settings.embedded
    assert settings.prefetch_count == 4


@pytest.mark.parametrize(("threads", "of_executions"), [(1, 256), (64, 256), (1024, 1024)])
def test_executions_are_taken_ahead_of_threads(threads: int, of_executions: int) -> None:
    settings = load_settings(threads=threads)
    assert (settings.prefetch_count, settings.accepted_ahead) == (threads, of_executions)
    settings = load_settings(threads=threads, prefetch=7)
    assert (settings.prefetch_count, settings.accepted_ahead) == (7, 7)


def test_arguments_go_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPEX_THREADS", "8")
    assert load_settings(threads=2, processes=None).threads == 2
    assert load_settings(threads=None).threads == 8


def test_what_a_worker_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPEX_BROKER_URL", "amqp://guest:guest@host/")
    assert load_settings().served == {}
    program = "0190f6a0-0000-7000-8000-000000000000"
    monkeypatch.setenv("DSPEX_SERVE_LANES", "high, bulk")
    monkeypatch.setenv("DSPEX_SERVE_PROGRAMS", program)
    monkeypatch.setenv("DSPEX_SERVE_ENVIRONMENTS", '["rag", "-"]')
    expected = {"lanes": ("high", "bulk"), "programs": (program,), "environments": ("rag", "-")}
    assert load_settings(serve_lanes=None).served == expected
    assert load_settings(serve_lanes="default").served == expected | {"lanes": ("default",)}
    assert load_settings(broker_url="memory://").served == {}  # nobody else would run the rest


@pytest.mark.parametrize(
    ("name", "value"), [("LANES", "low"), ("PROGRAMS", "triage"), ("ADAPTERS", "Mock"), ("ENVIRONMENTS", "rag,--")]
)
def test_what_no_worker_can_serve(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    [line] = refused(monkeypatch, **{f"DSPEX_SERVE_{name}": value})
    assert line.startswith(f"DSPEX_SERVE_{name}: ")


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPEX_THREADS", "")
    monkeypatch.setenv("DSPEX_BROKER_URL", "")
    assert load_settings() == Settings()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql_is_spoken_to_by_psycopg(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("DSPEX_DATABASE_URL", f"{scheme}://user:p%40ss@host:5433/name")
    assert load_settings().database_url == "postgresql+psycopg://user:p%40ss@host:5433/name"


@pytest.mark.parametrize(
    "url",
    [
        "sesame",
        "mysql://user:sesame@host/name",
        "postgresql+asyncpg://user:sesame@host/name",
        "postgresql://user:sesame@host:port/name",
        "postgresql://user:ses@ame:x@host/name",  # an unescaped @: what follows is no host to be shown
        "postgresql://user:ses@ame@host/name",
        "postgresql://user:sesame@host:1:2/name",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:name?mode=memory&uri=true",
    ],
)
def test_wrong_database(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    (line,) = refused(monkeypatch, DSPEX_DATABASE_URL=url)
    assert line.startswith("DSPEX_DATABASE_URL: ")
    assert "postgresql://user:password@host/name" in line
    assert "sqlite:///file" in line
    assert "ses" not in line
    assert "ame@" not in line.replace("host/name", "")


@pytest.mark.parametrize(
    "url",
    [
        "sesame",
        "http://user:sesame@host/",
        "memory://sesame",
        "amqp://",
        "amqp:///vhost",
        "amqp://user:ses/ame@host/",
        "amqp://user:ses#ame@host:5672/",
        "amqp://user:sesame@host:99999/",
    ],
)
def test_wrong_broker(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    (line,) = refused(monkeypatch, DSPEX_BROKER_URL=url)
    assert line.startswith("DSPEX_BROKER_URL: ")
    assert "amqp://user:password@host:5672/" in line
    assert "ses" not in line.replace("processes", "")


def test_wrong_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(monkeypatch, DSPEX_REDIS_URL="sesame") == ["DSPEX_REDIS_URL: use redis://host:6379/0"]


def test_every_wrong_value_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = refused(
        monkeypatch,
        DSPEX_DATABASE_URL="mysql://user:sesame@host/name",
        DSPEX_THREADS="0",
        DSPEX_PROCESSES="257",
        DSPEX_PREFETCH="sesame",
        DSPEX_LEASE_SECONDS="nan",
        DSPEX_SHUTDOWN_SECONDS="inf",
        DSPEX_MAX_ATTEMPTS="1.5",
        DSPEX_MAX_MESSAGE_BYTES="1",
        DSPEX_LOG_LEVEL="sesame",
    )
    assert sorted(line.partition(": ")[0] for line in lines) == [
        "DSPEX_DATABASE_URL",
        "DSPEX_LEASE_SECONDS",
        "DSPEX_LOG_LEVEL",
        "DSPEX_MAX_ATTEMPTS",
        "DSPEX_MAX_MESSAGE_BYTES",
        "DSPEX_PREFETCH",
        "DSPEX_PROCESSES",
        "DSPEX_SHUTDOWN_SECONDS",
        "DSPEX_THREADS",
    ]
    assert "sesame" not in "".join(lines)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("DSPEX_THREAD", "DSPEX_THREADS"),
        ("DSPEX_LOGLEVEL", "DSPEX_LOG_LEVEL"),
        ("DSPEX_DATABSE_URL", "DSPEX_DATABASE_URL"),
        ("DSPEX_WEBHOOK_PORT", "DSPEX_WEBHOOK_PORTS"),
        ("DSPEX_MAX_ATTEMPT", "DSPEX_MAX_ATTEMPTS"),
    ],
)
def test_a_misspelt_setting_is_named_with_what_was_meant(
    monkeypatch: pytest.MonkeyPatch, written: str, meant: str
) -> None:
    assert refused(monkeypatch, **{written: "sesame"}) == [f"{written}: there is no such setting; {meant} is meant"]


def test_a_setting_of_another_version_is_passed_over_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DSPEX_RETENTION", "sesame")
    monkeypatch.setenv("DSPEX_BROKER", "sesame")
    assert load_settings() == Settings()
    assert [record.getMessage() for record in caplog.records] == [
        "DSPEX_RETENTION: this version has no such setting, and goes on without it.",
        "DSPEX_BROKER: this version has no such setting, and goes on without it (is DSPEX_BROKER_URL meant?).",
    ]


def test_what_kubernetes_makes_of_a_service_is_no_setting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a pod has them beside Services named dspex, dspex-metrics, dspex-webhook and dspex-threads."""
    for service in ("DSPEX", "DSPEX_METRICS", "DSPEX_WEBHOOK", "DSPEX_THREADS"):
        for name, value in {
            "SERVICE_HOST": "10.96.0.11",
            "SERVICE_PORT": "9464",
            "SERVICE_PORT_HTTP_METRICS": "9464",
            "PORT": "tcp://10.96.0.11:9464",
            "PORT_9464_TCP": "tcp://10.96.0.11:9464",
            "PORT_9464_TCP_PROTO": "tcp",
            "PORT_9464_TCP_PORT": "9464",
            "PORT_9464_TCP_ADDR": "10.96.0.11",
            "PORT_53_UDP": "udp://10.96.0.11:53",
        }.items():
            monkeypatch.setenv(f"{service}_{name}", value)
    assert load_settings() == Settings()
    assert caplog.records == []


def test_variables_of_the_tests_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPEX_TEST_BROKER_URL", "amqp://guest:guest@host/")
    assert load_settings().embedded


def test_lms(monkeypatch: pytest.MonkeyPatch) -> None:
    lms = {"fast": {"model": "openai/gpt-4o-mini", "api_base": "https://host/v1", "secret": "TEAM_API_KEY"}}
    monkeypatch.setenv("DSPEX_LMS", json.dumps(lms | {"slow": {"model": "openai/gpt-4o"}}))
    assert load_settings().lms == {
        "fast": LMAlias("openai/gpt-4o-mini", "https://host/v1", "TEAM_API_KEY"),
        "slow": LMAlias("openai/gpt-4o"),
    }


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{sesame", "is not valid JSON"),
        ("[]", "dictionary"),
        ('{"fast": {}}', "fast.model: is missing"),
        ('{"fast": {"model": 3}}', "fast.model: "),
        ('{"Fast": {"model": "openai/b", "api_key": "sesame"}}', "Fast.api_key: "),
        (
            '{"fast": {"model": "sagemaker/x"}}',
            "fast: model: 'sagemaker/x' is not 'provider/model' of anthropic, ",
        ),
        ('{"fast": {"model": "azure/x"}}', "fast: api_base: azure has no default address: give one"),
        (
            '{"fast": {"model": "openai/x", "parameters": ["base_url"]}}',
            "fast: parameters: 'base_url' cannot be allowed",
        ),
        ('{"fast": {"model": "openai/x", "prices": {"input": 1}}}', "fast.prices.output: is missing"),
        ('{"fast": {"model": "openai/x", "prices": {"input": 1, "output": -1}}}', "fast.prices: output: is a price"),
        ('{"fast": {"model": "openai/x", "prices": {"input": 1, "output": 1, "per": 9}}}', "fast.prices.per: "),
    ],
)
def test_wrong_lms(monkeypatch: pytest.MonkeyPatch, value: str, said: str) -> None:
    (line,) = refused(monkeypatch, DSPEX_LMS=value)
    assert line.startswith("DSPEX_LMS: ")
    assert said in line
    assert "sesame" not in line


def test_secrets_of_lms(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (load_settings().lm_secrets, load_settings().lm_proxy) == ({}, None)
    monkeypatch.setenv("DSPEX_LM_SECRETS", '{"acme": ["ACME_OPENAI_API_KEY", "HUB_TOKEN"]}')
    assert load_settings().lm_secrets == {"acme": ("ACME_OPENAI_API_KEY", "HUB_TOKEN")}
    for wrong in ('{"acme": ["DATABASE_URL"]}', '{"acme": ["A_WEBHOOK_TOKEN"]}', '{"a b": []}'):
        (line,) = refused(monkeypatch, DSPEX_LM_SECRETS=wrong)
        assert line.startswith("DSPEX_LM_SECRETS: ")


@pytest.mark.parametrize("value", ["sesame", "https://proxy:3128", "http://proxy", "socks5://proxy:1", "http://a b:1"])
def test_wrong_proxies(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    assert refused(monkeypatch, DSPEX_LM_PROXY=value) == ["DSPEX_LM_PROXY: is not http://host:port"]


@pytest.mark.parametrize("value", ["acme.signatures, shared", '["acme.signatures", "shared"]'])
def test_modules(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    assert load_settings().modules == ()
    monkeypatch.setenv("DSPEX_MODULES", value)
    assert load_settings().modules == ("acme.signatures", "shared")
    assert load_settings(modules=["acme"]).modules == ("acme",)


def test_modules_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPEX_MODULES", "acme.signatures,acme.programs:RAG,acme.more:*")
    assert load_settings().signature_modules == ("acme.signatures",)
    assert load_settings().own_modules == ("acme.programs:RAG", "acme.more:*")


PYTHONS = {"rag": "/opt/rag/bin/python", "judge-2": "/opt/judge/bin/python"}


@pytest.mark.parametrize(
    "value", ["rag=/opt/rag/bin/python, judge-2 = /opt/judge/bin/python", json.dumps(PYTHONS)], ids=["pairs", "json"]
)
def test_environments(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    assert load_settings().environments == {}
    monkeypatch.setenv("DSPEX_ENVIRONMENTS", value)
    assert load_settings().environments == PYTHONS
    assert load_settings(environments={"own": "/bin/python"}).environments == {"own": "/bin/python"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("/opt/rag/bin/python", "is not name=path, each name once"),
        ("rag=/a,rag=/b", "is not name=path, each name once"),
        ("rag=", "is not name=path, each name once"),
        ("rag=bin/python", "rag: is not the absolute path of a Python"),
        ("RAG=/a", "string should match pattern"),
        ("{rag}", "is not valid JSON"),
        ('{"rag": 1}', "rag: "),
    ],
)
def test_wrong_environments(monkeypatch: pytest.MonkeyPatch, value: str, said: str) -> None:
    (line,) = refused(monkeypatch, DSPEX_ENVIRONMENTS=value)
    assert line.startswith("DSPEX_ENVIRONMENTS: ")
    assert said in line


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("acme,", "1: is not a dotted module name"),
        ("acme,acme.*", "1: is not a dotted module name"),
        ("acme:Class.Inner", "0: is not a dotted module name"),
        ("acme.ünicode", "0: is not a dotted module name"),
        ("[acme]", "is not valid JSON"),
        ("[1]", "0: "),
        ('{"acme": 1}', "0: is not a dotted module name"),
    ],
)
def test_wrong_modules(monkeypatch: pytest.MonkeyPatch, value: str, said: str) -> None:
    (line,) = refused(monkeypatch, DSPEX_MODULES=value)
    assert line.startswith("DSPEX_MODULES: ")
    assert said in line


def test_webhooks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (load_settings().webhook_ports, load_settings().webhook_hosts) == ((443,), ())
    assert load_settings().webhook_retries[:3] == (0, 5, 300)
    monkeypatch.setenv("DSPEX_WEBHOOK_RETRIES", "0, 2.5,60")
    monkeypatch.setenv("DSPEX_WEBHOOK_PORTS", "443,8443")
    monkeypatch.setenv("DSPEX_WEBHOOK_HOSTS", "localhost:8080,receiver.internal:443")
    monkeypatch.setenv("DSPEX_WEBHOOK_SECRETS", '{"acme": ["ACME_WEBHOOK_SECRET"]}')
    settings = load_settings()
    assert list(settings.webhook_retries) == [0, 2.5, 60]
    assert list(settings.webhook_ports) == [443, 8443]
    assert list(settings.webhook_hosts) == ["localhost:8080", "receiver.internal:443"]
    assert settings.webhook_secrets == {"acme": ("ACME_WEBHOOK_SECRET",)}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WEBHOOK_RETRIES", "0,sesame", "1: "),
        ("WEBHOOK_RETRIES", "-1", "0: "),
        ("WEBHOOK_RETRIES", "0,inf", "1: "),
        ("WEBHOOK_RETRIES", "[0", "use 0,5,300"),
        ("WEBHOOK_PORTS", "0", "0: "),
        ("WEBHOOK_HOSTS", "receiver.internal", "host:port"),
        ("FETCH_HOSTS", "https://images.example.com", "host:port"),
        ("WEBHOOK_HOSTS", "http://receiver.internal:80", "host:port"),
        ("WEBHOOK_SECRETS", '{"acme": ["OPENAI_API_KEY"]}', "acme.0: "),
        ("WEBHOOK_SECRETS", "{", "is not valid JSON"),
        ("WEBHOOK_TIMEOUT", "0", ""),
    ],
)
def test_wrong_webhooks(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    (line,) = refused(monkeypatch, **{f"DSPEX_{name}": value})
    assert line.startswith(f"DSPEX_{name}: ")
    assert said in line
    assert "sesame" not in line


def test_secrets_of_webhooks_are_no_programs_and_the_other_way_round(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {"A_WEBHOOK_SECRET": "s", "A_B_WEBHOOK_TOKEN": "t"}
    others = {"OPENAI_API_KEY": "k", "HUB_TOKEN": "t", "WEBHOOK_SECRET": "s", "A_SECRET": "s", "a_WEBHOOK_SECRET": "s"}
    for name, value in (named | others).items():
        monkeypatch.setenv(name, value)
    assert load_webhook_secrets() == named
    assert not load_secrets().keys() & named.keys()
    assert {"OPENAI_API_KEY", "HUB_TOKEN"} <= load_secrets().keys()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().threads = 2  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def test_secrets_are_keys_and_tokens_only(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {"OPENAI_API_KEY": "k", "HUB_TOKEN": "t"}
    others = {
        "DSPEX_DATABASE_URL": "postgresql://user:sesame@host/name",
        "API_KEY_FILE": "f",
        "openai_api_key": "small",
        "AWS_SECRET_ACCESS_KEY": "s",
        "EMPTY_API_KEY": "",
    }
    for name, value in (named | others).items():
        monkeypatch.setenv(name, value)
    secrets = load_secrets()
    assert secrets.items() >= named.items()
    assert not secrets.keys() & others.keys()
    assert all(name.endswith(("_API_KEY", "_TOKEN")) for name in secrets)


def test_principals_have_a_tenant_and_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPEX_PRINCIPALS", '{"orders": {"tenant": "acme", "roles": ["producer", "viewer"]}}')
    orders = load_settings().principals["orders"]
    assert (orders.tenant, set(orders.roles)) == ("acme", {"producer", "viewer"})


def test_a_login_of_the_workers_own_is_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPEX_BROKER_URL", "amqp://dspex%2Dworker:secret@broker/")
    monkeypatch.setenv("DSPEX_PRINCIPALS", '{"dspex-worker": {"tenant": "acme", "roles": ["producer"]}}')
    with pytest.raises(SettingsError, match=r"^DSPEX_PRINCIPALS: 'dspex-worker' is the workers' own login") as raised:
        load_settings()
    assert "secret" not in str(raised.value)


def test_no_login_begins_as_the_queues_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    principals = {login: {"tenant": "acme", "roles": []} for login in ("orders", "orders-eu", "orders.eu")}
    monkeypatch.setenv("DSPEX_PRINCIPALS", json.dumps(principals))
    with pytest.raises(SettingsError, match=r"^DSPEX_PRINCIPALS: 'orders\.eu' begins with 'orders\.'"):
        load_settings()


@pytest.mark.parametrize(
    "wrong",
    [
        '{"orders": {"tenant": "*", "roles": []}}',
        '{"orders": {"tenant": "acme.eu", "roles": []}}',
        '{"orders": {"tenant": "a#", "roles": []}}',
        '{"orders": {"tenant": "acme\\n", "roles": []}}',
        '{"orders": {"tenant": "", "roles": []}}',
        '{"orders": {"tenant": "' + "a" * 65 + '", "roles": []}}',
        '{"orders": {"tenant": "acme", "roles": ["system"]}}',
        '{"orders": 1}',
    ],
)
def test_nobody_is_made_a_worker_or_given_every_tenant(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("DSPEX_PRINCIPALS", wrong)
    with pytest.raises(SettingsError, match=r"^DSPEX_PRINCIPALS: orders"):
        load_settings()


@pytest.mark.parametrize("address", ["9464", ":9464", "::1:9464", "localhost:", "localhost:x", "http://localhost:1"])
def test_an_address_is_host_and_port(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    (line,) = refused(monkeypatch, DSPEX_METRICS_ADDRESS=address)
    assert line == "DSPEX_METRICS_ADDRESS: is not host:port: use 127.0.0.1:9464"


def test_each_process_has_a_port_for_its_metrics() -> None:
    assert Settings(processes=3).metrics_addresses == []
    addresses = Settings(processes=2, metrics_address="127.0.0.1:9464").metrics_addresses
    assert addresses == ["127.0.0.1:9464", "127.0.0.1:9465"]
    assert Settings(metrics_address="[::1]:9464").metrics_addresses == ["[::1]:9464"]


def test_queues_are_classic_or_quorum(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = refused(monkeypatch, DSPEX_QUEUE_TYPE="stream")
    assert line.startswith("DSPEX_QUEUE_TYPE: ")
    assert "'classic' or 'quorum'" in line


def test_addresses_of_blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, reason in {
        "memory://": "is of this process alone",
        "s3://key:hunter2@bucket": "has credentials in it",
        "gs://bucket": "is not an address of blobs: use the path of a folder",
    }.items():
        [line] = refused(monkeypatch, DSPEX_BLOBS=value)
        assert line.startswith(f"DSPEX_BLOBS: {reason}")
        assert "hunter2" not in line
