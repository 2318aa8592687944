"""The statements of the deliverer, which sends webhooks."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

from deploy.sql_calls import ENDPOINT, ID, Call, Statement
from dspex.contract.status import DeliveryStatus
from store import webhooks
from store.webhooks import Due, Mine, Settled
from store.webhooks.rows import delivery_of, endpoint_of

PLACE = "default receiver.example.com:443"
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
TAKEN = SimpleNamespace(
    id=ID.id,
    tenant=ID.tenant,
    endpoint_id=ENDPOINT.id,
    execution_id=ID.id,
    event_version=2,
    event="completed",
    place=PLACE,
    status=DeliveryStatus.PENDING,
    due_at=MOMENT,
    attempts=0,
    tries=0,
    reason=None,
    lock_version=2,
    inserted_at=MOMENT,
    finished_at=None,
)
DELIVERY, TO = delivery_of(TAKEN), endpoint_of(ENDPOINT)
FAILED = Settled(
    Due(DELIVERY, TO), DeliveryStatus.FAILED, reason="it failed", outcome="failed", failed=True, disable="it is gone"
)
DELIVERED_AGAIN = Settled(
    Due(DELIVERY, endpoint_of(SimpleNamespace(**vars(ENDPOINT) | {"failing_since": MOMENT}))),
    DeliveryStatus.DELIVERED,
    outcome="delivered",
)
OWN = Mine("worker", MOMENT)

KEY, ENDPOINT_KEY = "pk_webhook_deliveries", "pk_webhook_endpoints"
DUE_INDEX, PLACE_INDEX = "ix_webhook_deliveries_due", "ix_webhook_deliveries_place"
READ_ENDPOINT = Statement("read endpoint", "before one is disabled", (ENDPOINT_KEY,), (ENDPOINT,))

DELIVERER = (
    Call(
        webhooks.anything_due,
        (),
        (Statement("anything to deliver", "by the deliverer, all the time: it locks nothing", (DUE_INDEX,)),),
    ),
    Call(
        webhooks.anything_due,
        (OWN,),
        (
            Statement(
                "anything of its own to deliver",
                "instead, by a process that runs no work but its own, such as `dspex run`",
                (DUE_INDEX, "pk_executions"),
            ),
        ),
    ),
    Call(
        webhooks.places,
        ("", 64),
        (Statement("find places", "where something is due: whom it is for, a step each", (PLACE_INDEX,)),),
    ),
    Call(
        webhooks.take,
        ({PLACE: 1}, 30.0),
        (
            Statement("take deliveries", "for each place that has a thread free", (PLACE_INDEX, KEY), (TAKEN,)),
            Statement("read endpoints", "for what was taken", (ENDPOINT_KEY,), (ENDPOINT,)),
        ),
    ),
    Call(
        webhooks.take,
        ({PLACE: 1}, 30.0, OWN),
        (Statement("take own deliveries", "instead, as above", (PLACE_INDEX, KEY, "pk_executions")),),
    ),
    Call(
        webhooks.settle,
        ([FAILED],),
        (
            Statement("settle deliveries", "for each batch of attempts that have ended", (KEY,), (TAKEN,)),
            Statement("log attempts", "after that", ("pk_webhook_attempts",)),
            Statement("endpoints fail", "for those that failed first after a success", (ENDPOINT_KEY,)),
            Statement("read endpoints", "as above", (ENDPOINT_KEY,), (ENDPOINT,)),
            READ_ENDPOINT,
            Statement("disable endpoint", "where it is gone, or fails for too long", (ENDPOINT_KEY,), (ENDPOINT,)),
            READ_ENDPOINT,
            Statement("fail pending", "what waits for it", ("ix_webhook_deliveries_tenant_endpoint_id_inserted_at",)),
        ),
    ),
    Call(
        webhooks.settle,
        ([DELIVERED_AGAIN],),
        (
            Statement("settle deliveries", "as above", (KEY,), (TAKEN,)),
            Statement("log attempts", "as above", ("pk_webhook_attempts",)),
            Statement("endpoints are well", "for those that succeed after a failure", (ENDPOINT_KEY,)),
        ),
    ),
    Call(
        webhooks.release,
        ([DELIVERY],),
        (Statement("release deliveries", "when a deliverer drains", (KEY,)),),
    ),
    Call(
        webhooks.anything_to_announce,
        (),
        (Statement("anything to announce", "now and then: it locks nothing", ("ix_webhook_endpoints_announce",)),),
    ),
    Call(
        webhooks.announcements,
        (60.0, 100),
        (
            Statement("take announcements", "where there is any", ("ix_webhook_endpoints_announce",), (ID,)),
            Statement("read endpoints", "as above", (ENDPOINT_KEY,), (ENDPOINT,)),
        ),
    ),
    Call(
        webhooks.announced,
        (TO,),
        (Statement("announced", "for each that the broker has confirmed", (ENDPOINT_KEY,)),),
    ),
)
