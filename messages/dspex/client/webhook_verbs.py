"""The verbs of webhooks, as a part of the code interface (`dspex.client.interface`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from dspex.client.arguments import arguments_checked
from dspex.client.port import Port
from dspex.contract.callback import Callback
from dspex.contract.endpoints import (
    DeleteEndpoint,
    DisableEndpoint,
    EnableEndpoint,
    RegisterEndpoint,
    ReplayDeliveries,
    RotateSecret,
    UpdateEndpoint,
)
from dspex.contract.queries import GetDelivery, GetEndpoint, ListDeliveries, ListEndpoints
from dspex.contract.results import DeliveryView, EndpointView, Page, Replayed
from dspex.ids import uuid7


@arguments_checked
class WebhookVerbs(Port):
    """The part of the client for webhook endpoints and deliveries."""

    def register_endpoint(
        self, callback: Callback | Mapping[str, Any], *, endpoint_id: UUID | None = None
    ) -> EndpointView:
        """Register an endpoint: from now on it gets the end of every execution of the tenant."""
        command = RegisterEndpoint(endpoint_id=endpoint_id or uuid7(), callback=_callback(callback))
        return self.call(command, EndpointView)

    def update_endpoint(
        self, endpoint_id: UUID, callback: Callback | Mapping[str, Any], *, lock_version: int | None = None
    ) -> EndpointView:
        """Replace the data of a registered endpoint."""
        command = UpdateEndpoint(endpoint_id=endpoint_id, callback=_callback(callback), lock_version=lock_version)
        return self.call(command, EndpointView)

    def enable_endpoint(self, endpoint_id: UUID) -> EndpointView:
        """Resume deliveries to an endpoint."""
        return self.call(EnableEndpoint(endpoint_id=endpoint_id), EndpointView)

    def disable_endpoint(self, endpoint_id: UUID) -> EndpointView:
        """Stop deliveries to an endpoint."""
        return self.call(DisableEndpoint(endpoint_id=endpoint_id), EndpointView)

    def rotate_secret(self, endpoint_id: UUID, secret: str, *, overlap: float = 86_400.0) -> EndpointView:
        """Sign with another secret, given by name. For `overlap` seconds, sign with the previous one as well."""
        command = RotateSecret(endpoint_id=endpoint_id, secret=secret, overlap=float(overlap))
        return self.call(command, EndpointView)

    def delete_endpoint(self, endpoint_id: UUID) -> None:
        """Delete an endpoint; its deliveries stay in the log."""
        command = DeleteEndpoint(endpoint_id=endpoint_id)
        self.call(command, command.answer)

    def get_endpoint(self, endpoint_id: UUID) -> EndpointView:
        """One endpoint."""
        return self.call(GetEndpoint(endpoint_id=endpoint_id), EndpointView)

    def list_endpoints(self, /, **filters: Any) -> Page[EndpointView]:
        """A page of endpoints; the filters are the fields of `dspex.contract.queries.ListEndpoints`."""
        return self.call(ListEndpoints(**filters), Page[EndpointView])

    def get_delivery(self, delivery_id: UUID) -> DeliveryView:
        """One delivery, with every attempt."""
        return self.call(GetDelivery(delivery_id=delivery_id), DeliveryView)

    def list_deliveries(self, /, **filters: Any) -> Page[DeliveryView]:
        """A page of deliveries; the filters are the fields of `dspex.contract.queries.ListDeliveries`."""
        return self.call(ListDeliveries(**filters), Page[DeliveryView])

    def replay_deliveries(
        self, /, delivery_id: UUID | None = None, *, traceparent: str | None = None, **filters: Any
    ) -> int:
        """Deliver again: one delivery, or the failed ones that match the filters. Returns how many.

        The filters are the other fields of `dspex.contract.endpoints.ReplayDeliveries`.
        """
        command = ReplayDeliveries(delivery_id=delivery_id, **filters)
        return self.call(command, Replayed, traceparent=traceparent).count


def _callback(given: Callback | Mapping[str, Any]) -> Callback:
    return given if isinstance(given, Callback) else Callback(**given)
