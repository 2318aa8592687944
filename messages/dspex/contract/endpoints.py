"""What is done with webhooks: endpoints of a tenant, which get the ends of all its executions, and deliveries.

The ends of single executions, or of a program's, are asked for by `callback` in their commands
(`dspex.contract.callback`).
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
    """Push the end of every execution of the tenant to an endpoint, from now on. A tenant has at most 50."""

    type = "dspex.webhook.register.v1"
    answer = EndpointView

    endpoint_id: UUID
    callback: Callback


class UpdateEndpoint(Command):
    """Replace what a registered endpoint is; what is pending for it goes to where it is now.

    With `lock_version`, only if nobody has changed it since it was read.
    """

    type = "dspex.webhook.update.v1"
    answer = EndpointView

    endpoint_id: UUID
    callback: Callback
    lock_version: Annotated[StrictInt, Field(ge=1), WHOLE] | None = None


class EnableEndpoint(Command):
    """Deliver to it again. What failed while it was disabled can be replayed."""

    type = "dspex.webhook.enable.v1"
    answer = EndpointView

    endpoint_id: UUID


class DisableEndpoint(Command):
    """Deliver nothing more to it. What is pending, and what comes while it is disabled, is recorded as failed."""

    type = "dspex.webhook.disable.v1"
    answer = EndpointView

    endpoint_id: UUID


class RotateSecret(Command):
    """Sign with another secret; for `overlap` seconds with the one before as well."""

    type = "dspex.webhook.rotate.v1"
    answer = EndpointView

    endpoint_id: UUID
    secret: WebhookSecretName
    overlap: StrictFloat = Field(default=86_400.0, ge=0, le=MAX_OVERLAP_SECONDS)


class DeleteEndpoint(Command):
    """Delete an endpoint. What is pending for it fails; its deliveries stay in the log."""

    type = "dspex.webhook.delete.v1"

    endpoint_id: UUID


class ReplayDeliveries(Command):
    """Deliver again, under the same ids: one delivery, or all of an endpoint, an execution, or a span of time.

    Without `status`, those that failed; one that is named by its id whatever it came to. What is pending is left as it
    is, and so is what goes to an endpoint that is disabled or gone.
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
