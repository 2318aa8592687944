"""A run runs its own: what others left in the database is left alone, and what is unknown here is given back."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dspex import LM, Configuration, ExecutionOptions, ExecutionStatus, ProgramStatus
from dspex.contract.callback import Callback
from dspex.contract.status import DeliveryStatus
from dspex.webhooks import new_secret
from store.database.engine import make_engine
from tests.shell import Shell, refused
from tests.waiting import wait_until
from tests.webhook_receiver import Answer, WebhookReceiver
from workers.local import LocalClient, embedded
from workers.settings import Settings

ALIASES = {"house": {"model": "openai/none", "api_base": "http://127.0.0.1:9/v1"}}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, {})


def settings_of(shell: Shell, **more: object) -> Settings:
    return Settings.model_validate(
        {"database_url": f"sqlite:///{shell.folder / 'dspex.db'}", "lease_seconds": 1, "webhook_threads": 0} | more
    )


def program_of(client: LocalClient, adapter_type: str = "mock", model: str | None = None) -> uuid.UUID:
    configuration = Configuration(lm=LM(model=model) if model else None)
    program = client.create_program("theirs", "q -> a", adapter_type=adapter_type, configuration=configuration)
    assert client.initialize_program(program.program_id).status == ProgramStatus.READY
    return program.program_id


def status_of(shell: Shell, execution_id: uuid.UUID) -> str:
    name = shell.count(f"SELECT coalesce(max(status), 'none') FROM executions WHERE id = '{execution_id.hex}'")
    return str(name)


def leave(shell: Shell, **program: str) -> uuid.UUID:
    """Leave an execution in the folder's database that is due a moment later, and not run; it has another's name."""
    lms = json.dumps(ALIASES)
    with embedded(settings_of(shell, lms=json.loads(lms))) as client:
        program_id = program_of(client, **program)
        options = ExecutionOptions(not_before=datetime.now(UTC) + timedelta(seconds=3))
        sent = client.submit_program(program_id, {"q": "theirs"}, options=options)
        wait_until(lambda: client.list_executions().items != (), "the execution is there")
    return sent.execution_id


def test_a_run_leaves_alone_what_others_left(shell: Shell) -> None:
    theirs = leave(shell)
    rows = shell.write("rows.jsonl", *({"question": str(number)} for number in range(20)))
    shell("run", "question -> answer", "--inputs", rows, DSPEX_LEASE_SECONDS="1")
    due = "SELECT count(*) FROM executions WHERE not_before < strftime('%Y-%m-%d %H:%M:%f', 'now')"
    wait_until(lambda: shell.count(due) == 1, "it is due")
    ran = shell("run", "question -> answer", "--input", "question=later", DSPEX_LEASE_SECONDS="1")
    assert ran.code == 0, ran.err
    assert "1 execution of other runs wait in this database, and are left alone: --run-others runs them" in ran.err
    assert status_of(shell, theirs) == "pending"

    told = shell("run", "question -> answer", "--input", "question=last", "--run-others", DSPEX_LEASE_SECONDS="1")
    assert told.code == 0, told.err
    assert status_of(shell, theirs) == "completed"


def test_embedded_leaves_alone_what_others_left(shell: Shell, caplog: pytest.LogCaptureFixture) -> None:
    theirs = leave(shell)
    with embedded(settings_of(shell)) as client:
        assert "1 execution that others left in the database: embedded(run_others=True) runs them" in caplog.text
        program = program_of(client)
        # Its own is run when it is due, which is later than the other: the relay has looked by then.
        later = datetime.now(UTC) + timedelta(seconds=5)
        mine = client.submit_program(program, {"q": "mine"}, options=ExecutionOptions(not_before=later)).execution_id
        wait_until(lambda: status_of(shell, mine) == "completed", "its own is run")
        assert client.get_execution(theirs).status == ExecutionStatus.PENDING
    with embedded(settings_of(shell), run_others=True) as client:
        wait_until(lambda: client.get_execution(theirs).status == ExecutionStatus.COMPLETED, "it is run when asked for")


def test_what_is_replayed_here_is_run_here(shell: Shell) -> None:
    with embedded(settings_of(shell)) as client:
        configuration = Configuration(parameters={"fail": {"permanent": "always"}})
        program = client.create_program("failing", "q -> a", adapter_type="mock", configuration=configuration)
        client.initialize_program(program.program_id)
        assert client.execute_program(program.program_id, {"q": "x"}).status == ExecutionStatus.FAILED
        (failed,) = client.list_executions().items
        assert client.replay_executions([failed.execution_id]).count == 1
        again = failed.execution_id
        wait_until(lambda: client.get_execution(again).status == ExecutionStatus.FAILED, "it is run again")
        assert len(client.get_execution(again).timeline) > len(failed.timeline)


def test_an_alias_that_is_unknown_here_gives_the_execution_back(shell: Shell) -> None:
    theirs = leave(shell, adapter_type="native", model="house")
    # It knows no alias. Its lease outlasts the first import of DSPy.
    with embedded(settings_of(shell, lease_seconds=20), run_others=True) as client:

        def waits_again() -> bool:
            seen.append(client.get_execution(theirs))
            return len(seen[-1].timeline) >= 5 and seen[-1].status == ExecutionStatus.PENDING

        seen = [client.get_execution(theirs)]
        wait_until(waits_again, "it is claimed and given back twice", 60)
        found = seen[-1]
        assert found.attempt == 0
        assert found.error is not None
        assert "'house' is neither" in found.error.message


def test_a_run_whose_alias_is_gone_says_so_in_one_line(shell: Shell) -> None:
    command = ("run", "q -> a", "--input", "q=1", "--model", "house")
    shell(*command, DSPEX_LMS=json.dumps(ALIASES))
    refused(shell(*command), "the program cannot be built: ", "'house' is neither")


def test_other_peoples_rejections_do_not_hide_its_own(shell: Shell) -> None:
    """A rejection is found by its message, however many came after it."""
    shell("run", "q -> a", "--input", "q=1")
    engine = make_engine(f"sqlite:///{shell.folder / 'dspex.db'}")
    with engine.begin() as connection:
        program = connection.exec_driver_sql("SELECT id FROM programs").scalar_one()
        connection.exec_driver_sql("UPDATE programs SET status = 'archived' WHERE id = ?", (program,))
    engine.dispose()
    ran = shell("run", "q -> a", "--input", "q=1")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines()[-1].startswith("dspex: the program was rejected: program ")


class TestWebhooks:
    """Those of others are left alone, too: theirs is to be sent again a moment after its process has ended."""

    @pytest.fixture(autouse=True)
    def secret(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("A_WEBHOOK_SECRET", new_secret())

    @pytest.fixture
    def receiver(self) -> Iterator[WebhookReceiver]:
        with WebhookReceiver() as receiver:
            yield receiver

    @pytest.fixture
    def settings(self, shell: Shell, receiver: WebhookReceiver) -> Settings:
        hosts = (f"127.0.0.1:{receiver.port}",)
        return settings_of(shell, webhook_threads=2, webhook_hosts=hosts, webhook_retries=(0.0, *(0.1,) * 40))

    @pytest.fixture
    def callback(self, receiver: WebhookReceiver) -> Callback:
        url, events = receiver.url(), ("completed", "cancelled")
        return Callback.model_validate({"url": url, "secret": "A_WEBHOOK_SECRET", "events": events})

    @pytest.fixture
    def theirs(self, settings: Settings, receiver: WebhookReceiver, callback: Callback) -> uuid.UUID:
        """An execution whose webhook has failed, and is to be sent again."""
        receiver.script = lambda _: Answer(500)
        with embedded(settings) as client:
            ran = client.execute_program(program_of(client), {"q": "theirs"}, callback=callback)
            wait_until(lambda: bool(receiver.requests), "it was sent")
        receiver.script = lambda _: Answer(200)
        receiver.requests.clear()
        return ran.execution_id

    def test_embedded_sends_its_own(
        self, settings: Settings, callback: Callback, theirs: uuid.UUID, caplog: pytest.LogCaptureFixture
    ) -> None:
        with embedded(settings) as client:
            assert (
                "To be sent from this database: 1 webhook; embedded(run_others=True) sends what is due" in caplog.text
            )
            program = program_of(client)
            mine = client.execute_program(program, {"q": "mine"}, callback=callback).execution_id
            later = ExecutionOptions(not_before=datetime.now(UTC) + timedelta(hours=1))
            never = client.submit_program(program, {"q": "x"}, options=later, callback=callback).execution_id
            wait_until(lambda: client.list_executions(status=ExecutionStatus.PENDING).items != (), "it is scheduled")
            client.cancel_execution(never)

            def delivered(execution_id: uuid.UUID) -> bool:
                found = client.list_deliveries(execution_id=execution_id).items
                return [one.status for one in found] == [DeliveryStatus.DELIVERED]

            wait_until(lambda: delivered(mine) and delivered(never), "its own are sent")
            (left,) = client.list_deliveries(execution_id=theirs).items
            assert left.status == DeliveryStatus.PENDING
            (sent,) = client.list_deliveries(execution_id=mine).items
            assert client.replay_deliveries(sent.delivery_id) == 1
            wait_until(lambda: client.get_delivery(sent.delivery_id).attempts == 2, "it is sent again")
            # What is told to be sent again is this process's own, whoever ran it.
            assert client.list_deliveries(execution_id=theirs).items == (left,)
        with embedded(settings, run_others=True) as client:
            wait_until(lambda: delivered(theirs), "theirs is sent when asked for")

    def test_a_run_sends_its_own_before_it_ends(
        self, shell: Shell, settings: Settings, receiver: WebhookReceiver, theirs: uuid.UUID
    ) -> None:
        with embedded(settings) as client:
            client.register_endpoint(Callback(url=receiver.url(), secret="A_WEBHOOK_SECRET"))
        environment = {
            "DSPEX_WEBHOOK_HOSTS": settings.webhook_hosts[0],
            "A_WEBHOOK_SECRET": os.environ["A_WEBHOOK_SECRET"],
        }
        rows = shell.write("rows.jsonl", *({"question": str(number)} for number in range(30)))
        ran = shell("run", "question -> answer", "--inputs", rows, **environment)
        assert ran.code == 0, ran.err
        assert len(receiver.requests) == 30
        assert "To be sent from this database: 1 webhook; --run-others sends what is due" in ran.err
        assert str(theirs) not in "".join(request.body.decode() for request in receiver.requests)
