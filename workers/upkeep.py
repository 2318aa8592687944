"""The two threads that keep a process honest: one renews its leases, one rescues what others have left.

Both run in every worker process; any number of them is safe together.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from dspex import ExecuteProgram, wrap
from dspex.errors import MessageTooLarge, PublishError
from dspex.topology import COMMANDS_EXCHANGE
from store.executions import Request
from workers.application import Application
from workers.handlers.executions import give_up
from workers.writer import WriterClosed

logger = logging.getLogger(__name__)

CANCEL_SECONDS = 2.0


class Upkeep:
    """Starts and stops the threads."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._every, args=(seconds, work), name=name, daemon=True)
            for name, seconds, work in (
                # It also learns what is to be cancelled: often enough for somebody who waits.
                ("heartbeat", min(app.settings.lease_seconds / 3, CANCEL_SECONDS), self._heartbeat),
                ("relay", app.settings.lease_seconds / 3, self._relay),
            )
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the threads, and wait for them."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=5)

    def _every(self, seconds: float, work: Callable[[], None]) -> None:
        while not self._stop.wait(seconds):
            try:
                work()
            except WriterClosed:
                return
            except Exception:
                logger.exception("The %s failed; it goes on.", threading.current_thread().name)

    def _heartbeat(self) -> None:
        if self._app.running:
            heartbeat = self._app.writer.call(self._app.writes.heartbeat, self._app.running.ids)
            self._app.running.cancel(heartbeat.cancel_requested)

    def _relay(self) -> None:
        """Publish again what nobody runs: its message or its worker was lost."""
        for request in self._app.writer.call(self._app.writes.rescue, None):
            logger.warning("Execution %s has no worker: it is published again.", request.id)
            try:
                self._publish(request)
            except (PublishError, WriterClosed) as error:
                logger.warning("Execution %s will be due again in a lease: %s", request.id, error)
            except Exception:
                logger.exception("Execution %s cannot be published; the others are.", request.id)

    def _publish(self, request: Request) -> None:
        command = ExecuteProgram(
            execution_id=request.id,
            program_id=request.program_id,
            inputs=dict(request.inputs),
            options=request.options,
        )
        envelope = wrap(command, source=request.source, traceparent=request.traceparent, tenant=request.tenant)
        try:
            body = envelope.encode(self._app.settings.max_message_bytes)
        except MessageTooLarge as error:
            # It was just small enough when it came, in other JSON: whoever gets it now would reject it.
            give_up(self._app, request, f"its worker was lost, and it cannot be sent again: {error.message}")
            return
        self._app.publisher.publish(
            body,
            exchange=COMMANDS_EXCHANGE,
            routing_key=command.type,
            message_id=envelope.id,
        )
