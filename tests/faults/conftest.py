"""Servers that the fault tests may kill, a deployment for each test, and the table of what came of all.

DSPEX_TEST_TORTURE=1 (`make torture`) runs the same tests at their full size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local_servers import PostgresServer, RabbitMQServer
from tests.conftest import new_database, start
from tests.faults.deployment import FaultDeployment
from tests.faults.verdict import Verdict
from tests.sizes import TORTURE
from tests.sizes import sized as sized_by_run

HERE = Path(__file__).parent
RESULT = "fault"
"""A property of a test: a line of figures. With the test's report it comes to the process that tells of them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Faults need servers, and take their time."""
    for item in items:
        if item.path.parent == HERE and "rabbitmq" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.acceptance)
            item.add_marker(pytest.mark.timeout(3600 if TORTURE else 180))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures, to be quoted."""
    reports = [report for ended in ("passed", "failed") for report in terminalreporter.stats.get(ended, [])]
    told = [value for report in reports if report.when == "call" for value in report.user_properties]
    results = [line for name, line in told if name == RESULT]
    if results:
        terminalreporter.section("faults")
        for result in results:
            terminalreporter.write_line(result)


@pytest.fixture(scope="session")
def sized() -> Callable[[int, int], int]:
    """Chooses a size: the first in a usual run, the second under torture."""
    return sized_by_run


@pytest.fixture(scope="session")
def postgres(servers_directory: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL that may be killed: whoever does it starts it again."""
    server = PostgresServer(servers_directory / "faults-postgresql")
    start(server)
    yield server
    server.kill()


@pytest.fixture(scope="session")
def rabbitmq(servers_directory: Path) -> Iterator[RabbitMQServer]:
    """A RabbitMQ that may be killed: whoever does it starts it again."""
    server = RabbitMQServer(servers_directory / "faults-rabbitmq")
    start(server)
    yield server
    server.kill()


@pytest.fixture
def deployment(postgres: PostgresServer, rabbitmq: RabbitMQServer, tmp_path: Path) -> Iterator[FaultDeployment]:
    """A database of the test's own, empty queues, and no worker."""
    with new_database(postgres.url) as database_url:
        deployment = FaultDeployment(rabbitmq.url, database_url, tmp_path)
        yield deployment
        deployment.close()


@pytest.fixture
def passed(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Checks a verdict, and notes its figures: `passed(row, what, trials, verdict, more)`."""

    def passed(row: int, what: str, trials: int, verdict: Verdict, more: str = "") -> None:
        line = f"row {row:>2}  {what:<52} trials {trials:>5}   {verdict.numbers}   {more}".rstrip()
        request.node.user_properties.append((RESULT, line))
        assert not verdict.reasons, "\n".join([line, *verdict.reasons[:50]])

    return passed


@pytest.fixture
def broke(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Notes what came of a row without its protection: `broke(row, what, verdict, more)`."""

    def broke(row: int, what: str, verdict: Verdict, more: str = "") -> None:
        line = f"row {row:>2}  {'OFF: ' + what:<52} trials {1:>5}   {verdict.numbers}   {more}".rstrip()
        request.node.user_properties.append((RESULT, line))

    return broke
