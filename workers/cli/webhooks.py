"""`dspex webhook endpoint|delivery`: where webhooks go, and the log of what was delivered."""

from __future__ import annotations

import click

from dspex.contract.status import DeliveryStatus, ExecutionStatus
from workers.cli.entities import cursor, id_of, limit, status_of, traceparent, verb, when


@click.group()
def webhook() -> None:
    """Webhooks: endpoints, deliveries."""


@webhook.group()
def endpoint() -> None:
    """Endpoints: register, list, show, disable, rotate, ..."""


@webhook.group()
def delivery() -> None:
    """Deliveries: list, show with every attempt, replay."""


EVENTS = [status.value for status in ExecutionStatus if status.terminal]

of_endpoint = click.option("--endpoint", "endpoint_id", type=click.UUID)
of_execution = click.option("--execution", "execution_id", type=click.UUID)
secret = click.option("--secret", required=True, help="The name of the secret that signs: ..._WEBHOOK_SECRET.")
what = (
    click.argument("url"),
    secret,
    click.option("--event", "events", multiple=True, type=click.Choice(EVENTS), help="Repeat it; all by default."),
    click.option("--header", "headers", multiple=True, metavar="NAME=SECRET", help="A header with a secret's value."),
    click.option("--thin", is_flag=True, help="Send references, no outputs."),
)

verb(
    endpoint, "register", "register_endpoint", "Push the end of every execution to URL, from now on.",
    *what, click.option("--id", "endpoint_id", type=click.UUID, help="Its id; a new one by default."),
)  # fmt: skip
verb(
    endpoint, "list", "list_endpoints", "List endpoints, newest first.",
    click.option("--registered/--from-callbacks", default=True, show_default=True),
    click.option("--enabled/--disabled", default=None), limit, cursor,
)  # fmt: skip
verb(endpoint, "show", "get_endpoint", "Show an endpoint.", id_of("endpoint"))
verb(endpoint, "update", "update_endpoint", "Replace what an endpoint is.", id_of("endpoint"), *what)
verb(endpoint, "enable", "enable_endpoint", "Deliver to it again.", id_of("endpoint"))
verb(endpoint, "disable", "disable_endpoint", "Deliver nothing more to it.", id_of("endpoint"))
verb(
    endpoint, "rotate", "rotate_secret", "Sign with another secret, and for a while with both.",
    id_of("endpoint"), secret,
    click.option("--overlap", type=click.FloatRange(0), default=86_400.0, show_default=True, help="Seconds."),
)  # fmt: skip
verb(endpoint, "delete", "delete_endpoint", "Delete it; its deliveries stay in the log.", id_of("endpoint"))

verb(
    delivery, "list", "list_deliveries", "List deliveries, newest first.",
    of_endpoint, of_execution, status_of(DeliveryStatus), when("since"), when("until"), limit, cursor,
)  # fmt: skip
verb(delivery, "show", "get_delivery", "Show a delivery, with every attempt.", id_of("delivery"))
verb(
    delivery, "replay", "replay_deliveries", "Deliver again: one by its ID, or what failed of an endpoint or a time.",
    click.argument("delivery_id", type=click.UUID, metavar="[ID]", required=False),
    of_endpoint, of_execution, status_of(DeliveryStatus), when("since"), when("until"), traceparent,
)  # fmt: skip
