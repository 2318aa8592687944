"""docker-compose.yml and the Dockerfile say what the deployment promises."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.local_servers import MAX_MESSAGE_SIZE
from dspex.contract.envelope import MAX_ANSWER_BYTES

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    found: dict[str, Any] = compose["services"]
    return found


def test_the_services_are_the_servers_the_migration_and_the_worker(services: dict[str, Any]) -> None:
    assert set(services) == {"postgres", "rabbitmq", "redis", "migrate", "worker"}
    assert "management" in services["rabbitmq"]["image"]
    assert services["migrate"]["command"] == ["migrate"]
    assert services["worker"]["command"] == ["worker"]


@pytest.mark.parametrize("name", ["postgres", "rabbitmq", "redis"])
def test_a_server_has_a_health_check_a_volume_and_comes_back(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["healthcheck"]["test"]
    assert service["volumes"]
    assert service["restart"] == "unless-stopped"
    assert service["stop_grace_period"]


def test_the_broker_takes_the_largest_answer_and_nothing_much_larger(services: dict[str, Any]) -> None:
    assert "./deploy/rabbitmq.conf:/etc/rabbitmq/conf.d/20-dspex.conf:ro" in services["rabbitmq"]["volumes"]
    configuration = (ROOT / "deploy" / "rabbitmq.conf").read_text(encoding="utf-8")
    assert re.findall(r"^max_message_size = (\d+)$", configuration, re.MULTILINE) == [str(65 * 1024 * 1024)]
    assert MAX_MESSAGE_SIZE == 65 * 1024 * 1024 > MAX_ANSWER_BYTES


def test_the_worker_waits_for_the_servers_and_the_migration(services: dict[str, Any]) -> None:
    conditions = {name: wait["condition"] for name, wait in services["worker"]["depends_on"].items()}
    assert conditions == {
        "migrate": "service_completed_successfully",
        "postgres": "service_healthy",
        "rabbitmq": "service_healthy",
        "redis": "service_healthy",
    }
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"


def test_the_worker_can_be_scaled(services: dict[str, Any]) -> None:
    assert not {"container_name", "hostname", "ports"} & set(services["worker"])
    assert services["worker"]["stop_grace_period"]


def test_the_settings_reach_the_worker_and_no_secret_is_written(services: dict[str, Any]) -> None:
    environment = services["worker"]["environment"]
    assert environment["DSPEX_DATABASE_URL"].startswith("postgresql+psycopg://")
    assert environment["DSPEX_BROKER_URL"].startswith("amqp://")
    assert environment["DSPEX_REDIS_URL"].startswith("redis://")
    assert environment["OPENAI_API_KEY"] is None, "passed through from the caller's environment"
    migrating = services["migrate"]["environment"]["DSPEX_DATABASE_URL"]
    assert re.match(r"postgresql\+psycopg://dspex_owner:\$\{OWNER_PASSWORD:-", migrating)
    for setting in ("DSPEX_DATABASE_URL", "DSPEX_BROKER_URL", "DSPEX_REDIS_URL"):
        assert re.search(r":\$\{[A-Z]+_PASSWORD:-dspex-development\}@", environment[setting])


@pytest.mark.parametrize("name", ["postgres", "rabbitmq", "redis"])
def test_a_servers_image_is_pinned(services: dict[str, Any], name: str) -> None:
    assert re.search(r":\d\S*@sha256:[0-9a-f]{64}$", services[name]["image"])


def test_the_images_that_ours_is_made_of_are_pinned() -> None:
    found = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(found) == 2
    assert all(re.search(r":3\.11\S*@sha256:[0-9a-f]{64}$", image) for image in found)


def test_workers_are_no_superusers_and_have_the_roles_of_the_document(services: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    roles = (ROOT / "deploy" / "postgres_roles.sql").read_text(encoding="utf-8")
    [written] = re.findall(r"```sql\n(CREATE ROLE.*?)```", page, re.DOTALL)
    assert _statements(roles) == _statements(written)
    assert services["worker"]["environment"]["DSPEX_DATABASE_URL"].startswith("postgresql+psycopg://dspex_worker:")
    assert "POSTGRES_USER" not in services["postgres"]["environment"]
    assert "./deploy/postgres_roles.sql:/docker-entrypoint-initdb.d/20-dspex.sql:ro" in services["postgres"]["volumes"]


def _statements(script: str) -> list[str]:
    without = re.sub(r"--.*|\\set .*|PASSWORD \S+", "", script)
    return [line.strip() for line in without.splitlines() if line.strip()]


def test_the_brokers_login_may_do_what_the_document_says() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    configuration = (ROOT / "deploy" / "rabbitmq.conf").read_text(encoding="utf-8")
    [written] = re.findall(r"set_permissions -p dspex dspex-worker '(.+)' '(.+)' '(.+)'", page)
    kinds = ("configure", "write", "read")
    found = [re.findall(rf"^default_permissions\.{kind} = (.+)$", configuration, re.MULTILINE) for kind in kinds]
    assert found == [[pattern] for pattern in written]


def test_the_image_is_built_in_one_stage_and_run_in_another_by_an_ordinary_user() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    build, run = re.split(r"^FROM .*\n", dockerfile, flags=re.MULTILINE)[1:]
    assert "--require-hashes -r constraints/runtime.txt" in build
    assert "COPY --from=build" in run
    assert "pip" not in run
    assert re.search(r"^USER (?!root|0)\S+$", run, flags=re.MULTILINE)
    assert 'ENTRYPOINT ["dspex"]' in run
    assert not re.search(r"^(ENV|ARG) .*(KEY|PASSWORD|TOKEN|SECRET)", dockerfile, flags=re.MULTILINE)


def test_every_file_the_image_copies_is_let_through() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, flags=re.MULTILINE):
        for source in line.split()[:-1]:
            assert f"!{source}" in ignored
