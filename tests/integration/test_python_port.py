"""The python_port adapter: runs that are stopped, children that die, and what passes between the processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from adapters.lm import LMAlias, LMCatalog
from adapters.port import AdapterError, Outcome, ProgramSpec, RunOptions
from adapters.python_port import Limits, PythonPortAdapter
from adapters.python_port.server import Server
from dspex import LM, Configuration, ErrorCode, Signature
from tests import lm_server, waiting
from tests.lm_server import LMServer

ROOT = Path(__file__).parents[2]
SECRET = "sk-of-the-operator"
PATIENCE = 60
MIB = 1 << 20

Make = Callable[..., PythonPortAdapter]


@pytest.fixture(scope="module")
def server_of_children() -> Iterator[Server]:
    server = Server(Limits(preload=("tests.misbehaviour",), memory_bytes=256 * MIB))
    yield server
    server.close()


@pytest.fixture
def lm() -> Iterator[LMServer]:
    with LMServer() as running:
        yield running


@pytest.fixture
def secrets() -> dict[str, str]:
    return {"LOCAL_KEY": SECRET}


@pytest.fixture
def make(lm: LMServer, secrets: dict[str, str]) -> Iterator[Make]:
    catalog = LMCatalog({"local": LMAlias("openai/gpt-4o-mini", api_base=lm.url, secret="LOCAL_KEY")}, secrets.get)
    with ExitStack() as ending:

        def adapter(server: Server | None = None, **limits: Any) -> PythonPortAdapter:
            made = PythonPortAdapter(catalog, limits=Limits(**limits), server=server)
            ending.callback(made.close)
            return made

        yield adapter


@pytest.fixture
def port(make: Make, server_of_children: Server) -> PythonPortAdapter:
    return make(server_of_children)


@pytest.fixture
def held(lm: LMServer) -> Iterator[threading.Event]:
    """The LM does not answer before this is set."""
    end = threading.Event()
    lm.script = lm_server.held(end)
    yield end
    end.set()


def spec(**given: Any) -> ProgramSpec:
    given.setdefault("lm", LM(model="local"))
    return ProgramSpec("python_port", Signature.parse("question -> answer"), Configuration(**given))


def run(adapter: PythonPortAdapter, question: str = "why", /, run_id: str = "run", **options: Any) -> Outcome:
    backend_id = adapter.create_program(spec())
    return adapter.execute_program(backend_id, {"question": question}, RunOptions(run_id, **options))


def failure(adapter: PythonPortAdapter, question: str = "why", /, **options: Any) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        run(adapter, question, **options)
    return caught.value


def error_of(future: Future[Outcome]) -> AdapterError:
    error = future.exception(PATIENCE)
    assert isinstance(error, AdapterError)
    return error


def wait_until(condition: Callable[[], bool]) -> None:
    waiting.wait_until(condition, "what was waited for", PATIENCE)


def children_of(pid: int | None) -> set[int]:
    assert pid is not None
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"  # dead; who is to reap it is another matter


def with_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def printed(steps: Any) -> dict[str, str]:
    return {step.name: step.details["text"] for step in steps if step.kind == "output"}


# Stopping


def test_a_dripping_answer_ends_at_the_timeout_and_is_billed(port: PythonPortAdapter, lm: LMServer) -> None:
    run(port)
    lm.script = lm_server.dripping()
    error = failure(port, timeout=0.3)
    assert error.code is ErrorCode.TIMEOUT
    assert (error.usage.calls, error.usage.lm_calls) == (1, ())
    lm.script = lm_server.fitting
    assert run(port).outputs == {"answer": "an answer"}


@pytest.mark.parametrize("how", ["timeout", "cancel", "kill"])
def test_a_run_that_is_ended_reports_what_it_used_so_far(
    how: str, port: PythonPortAdapter, lm: LMServer, server_of_children: Server, held: threading.Event
) -> None:
    lm.script = lm_server.in_turn(lm_server.fields(reasoning="so", answer="a"), lm.script)
    backend_id = port.create_program(spec(module="MultiChainComparison", parameters={"M": 2}))
    options = RunOptions("run", timeout=5 if how == "timeout" else None)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(port.execute_program, backend_id, {"question": "why"}, options)
        wait_until(lambda: len(lm.requests) == 2)
        if how == "cancel":
            assert port.cancel("run")
        elif how == "kill":
            (child,) = children_of(server_of_children.pid)
            os.kill(child, signal.SIGKILL)
        error = error_of(running)
    code = {"timeout": ErrorCode.TIMEOUT, "cancel": ErrorCode.CANCELLED, "kill": ErrorCode.CRASHED}[how]
    assert error.code is code
    assert error.usage.calls == 2
    assert [call.model for call in error.usage.lm_calls] == ["openai/gpt-4o-mini"]
    assert error.usage.input_tokens == error.usage.lm_calls[0].input_tokens
    held.set()
    lm.script = lm_server.fitting
    assert run(port).outputs == {"answer": "an answer"}


def test_a_run_is_killed_alone(
    port: PythonPortAdapter, lm: LMServer, server_of_children: Server, held: threading.Event
) -> None:
    with ThreadPoolExecutor(8) as pool:
        running = {f"run {n}": pool.submit(run, port, run_id=f"run {n}") for n in range(8)}
        wait_until(lambda: len(lm.requests) == 8)
        assert port.cancel("run 3")
        assert error_of(running.pop("run 3")).code is ErrorCode.CANCELLED
        os.kill(min(children_of(server_of_children.pid)), signal.SIGKILL)
        wait_until(lambda: any(future.done() for future in running.values()))
        held.set()
        ends = [future.exception(PATIENCE) for future in running.values()]
    assert sorted(type(end).__name__ for end in ends) == ["AdapterError"] + ["NoneType"] * 6
    assert port.stats().failures == {ErrorCode.CANCELLED: 1, ErrorCode.CRASHED: 1}


def test_the_time_in_the_queue_is_part_of_the_timeout(
    make: Make, server_of_children: Server, lm: LMServer, held: threading.Event
) -> None:
    port = make(server_of_children, max_children=1)
    port.create_program(spec())
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(run, port, run_id="first")
        wait_until(lambda: len(lm.requests) == 1)
        error = failure(port, timeout=0.05)
        assert (error.code, error.usage.calls) == (ErrorCode.TIMEOUT, 0)
        waiting = pool.submit(run, port, run_id="waiting")
        wait_until(lambda: "1 runs wait" in port.health_check().message)
        next_one = pool.submit(run, port, run_id="next")
        wait_until(lambda: "2 runs wait" in port.health_check().message)
        assert port.cancel("waiting")
        assert error_of(waiting).code is ErrorCode.CANCELLED
        held.set()
        assert first.result(PATIENCE).outputs == next_one.result(PATIENCE).outputs == {"answer": "an answer"}
    assert len(lm.requests) == 2


def test_a_program_is_built_beside_runs_that_take_long(
    make: Make, server_of_children: Server, lm: LMServer, held: threading.Event
) -> None:
    port = make(server_of_children, max_children=1)
    port.create_program(spec())
    another = ProgramSpec("python_port", Signature.parse("q -> a"), Configuration(lm=LM(model="local")))
    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(run, port, run_id="first")
        wait_until(lambda: len(lm.requests) == 1)
        waiting = pool.submit(run, port, run_id="waiting")
        wait_until(lambda: "1 runs wait" in port.health_check().message)
        assert pool.submit(port.create_program, another).result(PATIENCE) == another.backend_id
        assert not running.done()
        assert len(lm.requests) == 1  # its child is gone, and not another that runs
        held.set()
        assert running.result(PATIENCE).outputs == waiting.result(PATIENCE).outputs == {"answer": "an answer"}


# Dying


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ("!exit 3", "exited with 3"),
        ("!abort", "was ended by SIGABRT"),
        (f"!allocate {1024 * MIB}", f"needed more memory than the {256 * MIB} bytes"),
        ("!scribble", "sent an invalid frame: it is not JSON"),
        ("!close", ""),
    ],
)
def test_a_child_that_fails_its_run_is_replaced(port: PythonPortAdapter, lm: LMServer, order: str, told: str) -> None:
    before = run(port)
    error = failure(port, order)
    assert error.code is ErrorCode.CRASHED
    assert told in error.message
    assert run(port).outputs == before.outputs


def test_the_last_words_of_a_child_are_told_without_the_key(make: Make) -> None:
    port = make(preload=("tests.last_words",))
    error = failure(port, SECRET)
    assert error.code is ErrorCode.CRASHED
    assert error.message == "the child process exited with 1; the last it wrote to stderr: the key is ***"
    assert SECRET not in f"{vars(error)}"
    error = failure(port, SECRET, trace=True)
    assert printed(error.trace) == {"stderr": "the key is ***\n"}


def test_what_a_program_started_ends_with_its_child(port: PythonPortAdapter, lm: LMServer) -> None:
    lm.script = lm_server.dripping()
    error = failure(port, "!start", timeout=1, trace=True)
    started = int(printed(error.trace)["stderr"])
    wait_until(lambda: gone(started))


def test_a_server_that_dies_takes_its_children_with_it_and_is_replaced(
    make: Make, lm: LMServer, held: threading.Event
) -> None:
    port = make()
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(run, port) for _ in range(2)]
        wait_until(lambda: len(lm.requests) == 2)
        server = port._servers.of(None).pid
        assert server is not None
        children = children_of(server)
        os.kill(server, signal.SIGKILL)
        assert {error_of(future).code for future in running} == {ErrorCode.CRASHED}
    for child in children:
        wait_until(lambda child=child: gone(child))  # type: ignore[misc]
    held.set()
    assert run(port).outputs == {"answer": "an answer"}
    assert port.health_check().ok


def test_a_server_that_cannot_start_is_reported(make: Make) -> None:
    port = make(preload=("no_such_module",))
    error = failure(port)
    assert error.code is ErrorCode.CRASHED
    assert "No module named 'no_such_module'" in error.message
    assert not port.health_check().ok
    assert "no_such_module" in port.health_check().message


def test_a_service_that_is_stopped_lets_runs_end(make: Make, lm: LMServer, held: threading.Event) -> None:
    port = make()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, port)
        wait_until(lambda: len(lm.requests) == 1)
        server = port._servers.of(None).pid
        for sent in (signal.SIGTERM, signal.SIGINT):
            for pid in (server, *children_of(server)):
                assert pid is not None
                os.kill(pid, sent)
        held.set()
        assert running.result(PATIENCE).outputs == {"answer": "an answer"}
    assert port._servers.of(None).pid == server


def test_no_room_for_another_child_is_transient_and_harms_no_other(
    port: PythonPortAdapter, lm: LMServer, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, port)
        wait_until(lambda: len(lm.requests) == 1)
        with monkeypatch.context() as patch:
            patch.setattr("os.pipe", full)
            error = failure(port)
        assert error.code is ErrorCode.TRANSIENT
        assert "Too many open files" in error.message
        held.set()
        assert running.result(PATIENCE).outputs == run(port).outputs


def test_the_thread_that_ran_first_may_end(make: Make) -> None:
    port = make()
    thread = threading.Thread(target=run, args=(port,))
    thread.start()
    thread.join()
    server = port._servers.of(None).pid
    children = children_of(server)
    assert run(port).outputs == {"answer": "an answer"}
    assert (port._servers.of(None).pid, children_of(server)) == (server, children)


# Ending


def test_closing_leaves_no_process(make: Make, lm: LMServer, held: threading.Event) -> None:
    port = make()
    held.set()
    run(port)
    server = port._servers.of(None).pid
    held.clear()
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(run, port, run_id=str(number)) for number in range(3)]
        wait_until(lambda: len(lm.requests) == 4)
        processes = {server, *children_of(server)}
        assert len(processes) == 4
        port.close()
        assert all(pid is not None and gone(pid) for pid in processes)
        assert {error_of(future).code for future in running} == {ErrorCode.CANCELLED}
    port.close()
    with pytest.raises(AdapterError, match="the adapter was closed"):
        port.create_program(spec())


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_the_worker(lm: LMServer, held: threading.Event, sent: signal.Signals) -> None:
    program = textwrap.dedent(
        f"""
        import threading, time
        from pathlib import Path
        from adapters.lm import LMAlias, LMCatalog
        from adapters.port import ProgramSpec, RunOptions
        from adapters.python_port import PythonPortAdapter
        from dspex import LM, Configuration, Signature

        adapter = PythonPortAdapter(LMCatalog({{"local": LMAlias("openai/gpt-4o-mini", {lm.url!r})}}))
        spec = ProgramSpec("python_port", Signature.parse("question -> answer"), Configuration(lm=LM(model="local")))
        backend_id = adapter.create_program(spec)
        for number in range(3):
            run = (backend_id, {{"question": "why"}}, RunOptions(str(number)))
            threading.Thread(target=adapter.execute_program, args=run, daemon=True).start()
        server = adapter._servers.of(None).pid
        children = Path(f"/proc/{{server}}/task/{{server}}/children")
        while len(children.read_text().split()) < 3:
            time.sleep(0.01)
        print(server, children.read_text(), flush=True)
        time.sleep(1000)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=with_path()
    ) as worker:
        assert worker.stdout is not None
        processes = [int(pid) for pid in worker.stdout.readline().split()]
        assert len(processes) == 4
        wait_until(lambda: len(lm.requests) == 3)
        worker.send_signal(sent)
        worker.wait(PATIENCE)
        for pid in processes:
            wait_until(lambda pid=pid: gone(pid))  # type: ignore[misc]


# What passes


def test_no_key_of_the_environment_is_in_a_child(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setenv("DSPEX_DATABASE_URL", "postgresql://dspex:canary@db/dspex")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:canary@proxy:3128")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    port = make()
    run(port)
    server = port._servers.of(None).pid
    processes = [server, *children_of(server)]
    assert len(processes) == 2
    for pid in processes:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"canary" not in environment
        assert SECRET.encode() not in environment
        assert SECRET.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        names = {entry.split(b"=")[0] for entry in environment.split(b"\0") if entry}
        assert {b"LC_ALL", b"NO_PROXY", b"PATH"} <= names <= {name.encode() for name in Limits().environment}


def test_a_child_has_no_descriptors_but_its_own(port: PythonPortAdapter, server_of_children: Server) -> None:
    with Path(__file__).open() as opened:
        os.set_inheritable(opened.fileno(), True)
        run(port)
        (child,) = children_of(server_of_children.pid)
        open_there = [path.readlink() for path in Path(f"/proc/{child}/fd").iterdir()]
    assert not any(path.suffix == ".py" for path in open_there)


def test_the_worker_does_not_load_dspy() -> None:
    program = "import adapters.python_port, sys; print('dspy' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env=with_path())
    assert told.stdout == "False\n"


def test_a_key_that_changed_is_used_once_the_program_is_created_again(
    port: PythonPortAdapter, lm: LMServer, secrets: dict[str, str]
) -> None:
    run(port)
    run(port)
    secrets["LOCAL_KEY"] = "sk-new"
    run(port)
    sent = [f"Bearer {SECRET}", f"Bearer {SECRET}", "Bearer sk-new"]
    assert [request.authorization for request in lm.requests] == sent


def test_what_a_program_prints_is_in_the_trace_and_nowhere_else(
    port: PythonPortAdapter, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = run(port, f"!print {{\x01 é {SECRET}", trace=True)
    assert outcome.outputs == {"answer": "an answer"}
    text = printed(outcome.trace)
    assert text["stderr"] == "{\x01 é ***\n"
    assert text["stdout"].split("\n").count("{\x01 é ***") == 3
    assert printed(run(port, trace=True).trace) == {}
    assert capfd.readouterr() == ("", "")


def test_a_flood_of_output_is_cut(port: PythonPortAdapter) -> None:
    outcome = run(port, f"!flood {20 * MIB}", trace=True)
    assert outcome.trace is not None
    step = outcome.trace[-1]
    assert step.details["bytes"] == 20 * MIB + 1
    assert len(printed(outcome.trace)["stdout"]) <= 10_000
    assert run(port, f"!flood {20 * MIB}").outputs == {"answer": "an answer"}


def test_a_child_has_its_streams_and_its_socket_and_nothing_of_the_server(make: Make) -> None:
    port = make(preload=("tests.misbehaviour",))  # its first child: no connection to an LM is kept yet
    told = printed(run(port, "!descriptors", trace=True).trace)["stdout"]
    opened = dict(line.split(" ", 1) for line in told.splitlines())
    assert opened.pop("0") == "/dev/null"
    assert {opened.pop("1").split(":")[0], opened.pop("2").split(":")[0]} == {"pipe"}
    assert [link.split(":")[0] for link in opened.values() if not link.startswith("/proc/")] == ["socket"]


def test_large_inputs_and_outputs_pass(port: PythonPortAdapter, lm: LMServer) -> None:
    lm.script = lm_server.large(10_000_000)
    outcome = run(port, "why " * 500_000)
    assert len(outcome.outputs["answer"]) == 10_000_000


def test_inputs_and_outputs_beyond_the_cap_of_a_frame_are_refused(make: Make, lm: LMServer) -> None:
    port = make(max_frame_bytes=100_000)
    error = failure(port, "why " * 50_000)
    assert (error.code, error.usage.calls) == (ErrorCode.INVALID_INPUT, 0)
    lm.script = lm_server.large(200_000)
    error = failure(port)
    assert (error.code, error.usage.calls) == (ErrorCode.INVALID_OUTPUT, 1)
    lm.script = lm_server.fitting
    assert run(port).outputs == {"answer": "an answer"}


# Many


def test_many_threads_share_few_children_and_do_not_mix(make: Make, server_of_children: Server, lm: LMServer) -> None:
    port = make(server_of_children, max_children=6, recycle_runs=20)
    lm.script = lm_server.answers_by(lambda inputs: {"answer": f"to {inputs['question']}"})
    backend_id = port.create_program(spec())

    def execute(number: int) -> bool:
        inputs = {"question": f"q{number}"}
        return port.execute_program(backend_id, inputs, RunOptions(str(number))).outputs == {"answer": f"to q{number}"}

    with ThreadPoolExecutor(16) as pool:
        results = pool.map(execute, range(400))
        most = len(children_of(server_of_children.pid))
        assert all(results)
    assert most <= 2 * 6  # those that were just ended are not reaped yet
    assert port.stats().runs == 400


def test_a_child_is_used_again_until_it_is_worn(make: Make, server_of_children: Server) -> None:
    port = make(server_of_children, recycle_runs=3)
    run(port)
    used = [child_of(port)]
    for _ in range(8):
        run(port)
        used.append(child_of(port))
    assert len({pid for pid in used if pid}) == 3
    port = make(server_of_children, recycle_bytes=40 * MIB)
    run(port)
    first = child_of(port)
    run(port, f"!allocate {60 * MIB}")
    assert child_of(port) == first
    run(port, f"!keep {60 * MIB}")
    assert child_of(port) != first


def child_of(port: PythonPortAdapter) -> int | None:
    """The idle child of an adapter that has one at most."""
    return next((child.pid for child in port._pool._idle), None)


def test_children_that_are_idle_for_long_end(make: Make, server_of_children: Server) -> None:
    port = make(server_of_children, idle_seconds=0.05)
    run(port)
    wait_until(lambda: "0 idle" in port.health_check().message)
    assert run(port).outputs == {"answer": "an answer"}


def test_a_child_that_died_while_idle_is_not_given_a_run(port: PythonPortAdapter) -> None:
    run(port)
    child = child_of(port)
    assert child is not None
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: gone(child))
    assert run(port).outputs == {"answer": "an answer"}


def test_nothing_is_left_open(make: Make, server_of_children: Server, lm: LMServer) -> None:
    port = make(server_of_children, recycle_runs=2)
    run(port)
    port.close()
    before = open_descriptors()
    for _ in range(5):
        port = make(server_of_children, recycle_runs=2)
        for _ in range(5):
            run(port)
        lm.script = lm_server.dripping()
        failure(port, timeout=0.05)
        lm.script = lm_server.fitting
        port.close()
    wait_until(lambda: open_descriptors() <= before)
