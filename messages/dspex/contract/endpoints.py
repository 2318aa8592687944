"""The commands for webhooks: a tenant's endpoints, which receive the ends of all its executions, and deliveries.

For single executions or programs, give a `callback` in their commands instead (`dspex.contract.callback`).
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import Field, StrictFloat, StrictInt, model_validator

from dspex.contract.callback import Callback, WebhookSecretName
from dspex.contract.commands import Command
from dspex.contract.results import EndpointView, Replayed
from dspex.contract.status import DeliveryStatus
from dspex.scalars import WHOLE, Moment, Until

MAX_OVERLAP_SECONDS = 30 * 86_400.0


class RegisterEndpoint(Command):
    """Register an endpoint: from now on it receives the end of every execution of the tenant. At most 50 per tenant."""

    type = "dspex.webhook.register.v1"
    answer = EndpointView

    endpoint_id: UUID
    callback: Callback


class UpdateEndpoint(Command):
    """Replace the data of a registered endpoint. Pending deliveries go to the new URL.

    With `lock_version`, the change is made only if the endpoint still has this version.
    """

    type = "dspex.webhook.update.v1"
    answer = EndpointView

    endpoint_id: UUID
    callback: Callback
    lock_version: Annotated[StrictInt, Field(ge=1), WHOLE] | None = None


class EnableEndpoint(Command):
    """Resume deliveries to an endpoint. Those that failed while it was disabled can be replayed."""

    type = "dspex.webhook.enable.v1"
    answer = EndpointView

    endpoint_id: UUID


class DisableEndpoint(Command):
    """Stop deliveries to an endpoint. Pending ones, and new ones while it is disabled, are recorded as failed."""

    type = "dspex.webhook.disable.v1"
    answer = EndpointView

    endpoint_id: UUID


class RotateSecret(Command):
    """Sign with another secret. For `overlap` seconds, sign with the previous one as well."""

    type = "dspex.webhook.rotate.v1"
    answer = EndpointView

    endpoint_id: UUID
    secret: WebhookSecretName
    overlap: StrictFloat = Field(default=86_400.0, ge=0, le=MAX_OVERLAP_SECONDS)


class DeleteEndpoint(Command):
    """Delete an endpoint. Its pending deliveries fail; all its deliveries stay in the log."""

    type = "dspex.webhook.delete.v1"

    endpoint_id: UUID


class ReplayDeliveries(Command):
    """Deliver again, under the same ids: one delivery, or all of an endpoint, an execution, or a span of time.

    Without `status`, only failed deliveries are replayed; a delivery that is named by its id may have any outcome.
    Pending deliveries, and those to an endpoint that is disabled or deleted, are skipped.
    """

    type = "dspex.delivery.replay.v1"
    answer = Replayed

    delivery_id: UUID | None = None
    endpoint_id: UUID | None = None
    execution_id: UUID | None = None
    status: DeliveryStatus | None = None
    since: Moment | None = None
    until: Until | None = None

    @model_validator(mode="after")
    def _names_some(self) -> ReplayDeliveries:
        filters = (self.endpoint_id, self.execution_id, self.status, self.since, self.until)
        given = [value for value in filters if value is not None]
        if self.delivery_id is not None and given:
            raise ValueError("give delivery_id or a filter, not both")
        if self.delivery_id is None and given in ([], [self.status]):
            raise ValueError("give delivery_id, endpoint_id, execution_id, since or until")
        return self
