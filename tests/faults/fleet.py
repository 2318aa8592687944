"""Worker processes that are replaced when they end, as by a supervisor, and why each has ended."""

from __future__ import annotations

import abc
import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from random import Random
from typing import Final, Self

from sqlalchemy.exc import OperationalError

from tests import preloaded
from tests.faults.deployment import FaultDeployment, Worker
from tests.waiting import wait_until

PAUSE_SECONDS: Final = 0.5
"""Until one that ended is replaced."""
PROCESS_ENDED_BY_ADAPTER: Final = 1
ENDED: Final = suppress(ProcessLookupError)
"""A worker that is stopped may have been ended by an execution of its own meanwhile."""


@dataclass
class _Place:
    worker: Worker
    lent: bool = False
    """Whether a fault has it in its hands."""
    killed: bool = False


class _Tended(abc.ABC):
    """Processes that a thread looks after, while this is used as a context manager."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._tending = threading.Thread(target=self._tend, daemon=True)

    def __enter__(self) -> Self:
        self._tending.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._tending.join()

    @abc.abstractmethod
    def _tend(self) -> None:
        """Replace what has ended, until `_stop` is set."""


class Fleet(_Tended):
    """Workers. They are tended until the end of its context."""

    def __init__(self, deployment: FaultDeployment, number: int, threads: int) -> None:
        super().__init__()
        self._deployment = deployment
        self._threads = threads
        self._lock = threading.Lock()
        self._places = [_Place(self._start()) for _ in range(number)]
        for place in self._places:
            place.worker.wait_until_ready()
        self.strange: list[str] = []
        """Ends of workers that nobody has asked for."""

    @property
    def workers(self) -> list[Worker]:
        """Those of now."""
        return [place.worker for place in self._places]

    @contextmanager
    def lent(self, random: Random) -> Generator[_Place | None]:
        """One for a fault, and for no other at the same time; None where no one is free."""
        with self._lock:
            free = [place for place in self._places if not place.lent and place.worker.alive]
            place = random.choice(free) if free else None
            if place is not None:
                place.lent = True
        try:
            yield place
        finally:
            if place is not None:
                place.lent = False

    def kill(self, random: Random) -> None:
        """SIGKILL one; another takes its place."""
        with self.lent(random) as place:
            if place is not None:
                place.killed = True
                place.worker.kill()

    def freeze(self, random: Random, seconds: float) -> None:
        """SIGSTOP one for a while."""
        with self.lent(random) as place, ENDED:
            if place is not None:
                place.worker.stop()
                time.sleep(seconds)
                place.worker.resume()

    def freeze_in_transaction(self, random: Random, seconds: float) -> None:
        """SIGSTOP one while it has a transaction open, which is looked for some times."""
        held = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND state = 'idle in transaction' AND state_change < clock_timestamp() - interval '30 ms'"
        )
        with self.lent(random) as place, ENDED:
            for _ in range(100 if place is not None else 0):
                assert place is not None
                place.worker.stop()
                try:
                    time.sleep(0.04)
                    if self._deployment.scalar(held):
                        time.sleep(seconds)
                        return
                except OperationalError:
                    pass  # another fault is at the database
                finally:
                    place.worker.resume()
                time.sleep(random.uniform(0, 0.05))

    def deploy(self, random: Random) -> None:
        """Start another in the place of one, and drain that."""
        with self.lent(random) as place:
            if place is None:
                return
            old, place.worker = place.worker, self._start()
            code = old.terminate(60)
            # Where the database was away it could hand nothing back; an execution may end its process in the middle.
            # The signal itself ends one that has just started.
            unable = "their leases run out" in old.log or "Stopped." not in old.log
            expected = {0: True, 1: unable, -signal.SIGTERM: "takes jobs" not in old.log}
            if not expected.get(-1 if code is None else code, False):
                self.strange.append(f"worker {old.pid} was to drain and ended with {code}: {old.log[-1000:]}")

    def rest(self) -> None:
        """Wait until all live and take jobs."""
        wait_until(lambda: all(w.alive and "takes jobs" in w.log for w in self.workers), "all workers take jobs", 60)

    def _start(self) -> Worker:
        return self._deployment.work(self._threads, wait=False)

    def _tend(self) -> None:
        while not self._stop.wait(0.1):
            for place in self._places:
                if not place.lent and not place.worker.alive:
                    self._explain(place)
                    time.sleep(PAUSE_SECONDS)
                    place.killed = False
                    place.worker = self._start()

    def _explain(self, place: _Place) -> None:
        """Note an end that is none of: killed, ended by what it ran, no server at its start."""
        worker = place.worker
        code = worker.wait(1)
        ran = [record["pid"] for record in self._deployment.history.records("killing")]
        expected = {
            -9: place.killed,
            PROCESS_ENDED_BY_ADAPTER: worker.pid in ran,
            2: "takes jobs" not in worker.log,
        }
        if not expected.get(code or 0, False):
            self.strange.append(f"worker {worker.pid} ended with {code}: {worker.log[-1000:]}")


class Deliverer(_Tended):
    """The process that delivers webhooks; it is started again when it ends. Use as a context manager."""

    def __init__(self, deployment: FaultDeployment) -> None:
        super().__init__()
        self._deployment = deployment
        self._log = deployment.directory / "deliverer.log"
        self._process = self._start()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        """SIGKILL it."""
        self._process.kill()

    def _start(self) -> preloaded.Running:
        environment = {**self._deployment.environment, "DSPEX_WEBHOOK_THREADS": "4"}
        return preloaded.start(["deliverer"], environment, self._log)

    def _tend(self) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            if self._process.poll() is not None:
                self._process = self._start()
