"""One attempt of a delivery: its content, its secrets, and its result."""

from __future__ import annotations

import logging

from dspex import wrap
from dspex.contract.callback import Callback
from dspex.contract.status import DeliveryStatus
from dspex.errors import DspexError
from store.executions import Execution
from store.webhooks import Due, Endpoint, Settled
from workers.outbound.encoder import SOURCE
from workers.outbound.ended_event import event_of
from workers.telemetry.episodes import Episodes
from workers.webhooks.attempt import Attempt, Outcome
from workers.webhooks.bodies import encode
from workers.webhooks.schedule import Schedule
from workers.webhooks.secrets import WebhookSecrets
from workers.webhooks.sender import Delivery, Sender

DELETED = "the endpoint was deleted"
DISABLED = "the endpoint is disabled"
REPLACED = "the execution was run again: its new end is an event of its own"


class DeliveryRunner:
    """Makes attempts. Thread-safe.

    Args:
        episodes: the episodes of the process.
    """

    def __init__(
        self, sender: Sender, secrets: WebhookSecrets, schedule: Schedule, episodes: Episodes | None = None
    ) -> None:
        self._sender = sender
        self._secrets = secrets
        self._schedule = schedule
        self._episodes = episodes or Episodes()

    def deliver(self, due: Due, execution: Execution | None) -> tuple[Settled, Attempt | None]:
        """Make an attempt, if the endpoint and the execution allow it. No endpoint can make it raise.

        Args:
            execution: the current state of the execution, or None if it is gone.

        Returns:
            The result for the delivery, and the attempt, if one was made.
        """
        endpoint = due.endpoint
        if endpoint is None or not endpoint.enabled:
            return Settled(due, DeliveryStatus.FAILED, reason=DISABLED if endpoint else DELETED), None
        if execution is None or execution.lock_version != due.delivery.event_version:
            return Settled(due, DeliveryStatus.FAILED, reason=REPLACED), None
        try:
            attempt = self._sender.send(self._delivery(due, endpoint, execution))
        except DspexError as error:
            attempt = Attempt(Outcome.REFUSED, 0.0, reason=error.message)
        except Exception as error:  # noqa: BLE001 - it is told
            said = f"delivery {due.delivery.id}"
            self._episodes.tell("Deliveries fail unexpectedly", said, level=logging.ERROR, error=error)
            attempt = Attempt(Outcome.FAILED, 0.0, reason=f"{type(error).__name__}: see the deliverer's log")
        return self._settled(due, endpoint, attempt), attempt

    def close(self) -> None:
        """Close all connections, including those in use."""
        self._sender.close()

    def _delivery(self, due: Due, endpoint: Endpoint, execution: Execution) -> Delivery:
        tenant, callback = due.delivery.tenant, endpoint.callback
        return Delivery(
            id=due.delivery.event_id,
            url=callback.url,
            body=body_of(execution, callback, due.delivery.event_id),
            secrets=[
                value
                for name in (callback.secret, endpoint.previous_secret)
                if name is not None
                for value in self._secrets.signing(tenant, name, callback.url)
            ],
            headers=self._secrets.headers(tenant, callback.headers, callback.url),
        )

    def _settled(self, due: Due, endpoint: Endpoint, attempt: Attempt) -> Settled:
        step = self._schedule.step(attempt, due.delivery.tries + 1, endpoint.failing_for)
        return Settled(
            due=due,
            status=step.status,
            retry_in=step.retry_in,
            reason=attempt.reason,
            outcome=attempt.outcome,
            http_status=attempt.status,
            duration_ms=attempt.duration_ms,
            response=attempt.response,
            failed=attempt.outcome is not Outcome.DELIVERED,
            disable=step.disable,
        )


def body_of(execution: Execution, callback: Callback, event_id: str) -> bytes:
    """The body: the same event as on the broker, with the time of the execution's end. Always the same bytes."""
    event = event_of(execution, execution.attempt, execution.metadata)
    envelope = wrap(
        event,
        source=SOURCE,
        traceparent=execution.traceparent,
        message_id=event_id,
        tenant=execution.tenant,
        extensions=execution.extensions,
    )
    return encode(envelope.model_copy(update={"time": execution.finished_at}), thin=callback.thin)
