"""The handlers for webhooks: endpoints, the log of deliveries, and replays."""

from __future__ import annotations

from uuid import UUID

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
from dspex.contract.results import DeliveryView, EndpointView, Nothing, Page, Replayed
from dspex.contract.status import DeliveryStatus
from dspex.errors import IllegalTransition
from store import webhooks
from store.database.identity import Identity
from workers.application.wiring import Application
from workers.brokers.work_queue import CHANGES
from workers.handlers.registry import handles
from workers.outbound.serializers import delivery_view, endpoint_view, page_of
from workers.security.authorization import EVERY_ROLE, OPERATORS
from workers.security.request import Received


@handles(RegisterEndpoint, roles=OPERATORS)
def register_endpoint(app: Application, received: Received[RegisterEndpoint]) -> EndpointView:
    """Register an endpoint, if webhooks may go there."""
    command, tenant = received.command, received.tenant
    app.callbacks.check(tenant, command.callback)
    row = app.write(lambda c: webhooks.register(c, command.endpoint_id, command.callback, tenant=tenant))
    return endpoint_view(row)


@handles(UpdateEndpoint, roles=OPERATORS)
def update_endpoint(app: Application, received: Received[UpdateEndpoint]) -> EndpointView:
    """Replace the data of an endpoint."""
    command, tenant = received.command, received.tenant
    app.callbacks.check(tenant, command.callback)
    row = app.write(
        lambda connection: webhooks.update(
            connection, command.endpoint_id, command.callback, lock_version=command.lock_version, tenant=tenant
        )
    )
    return endpoint_view(row)


@handles(EnableEndpoint, roles=OPERATORS)
def enable_endpoint(app: Application, received: Received[EnableEndpoint]) -> EndpointView:
    """Resume deliveries to an endpoint."""
    endpoint_id, tenant = received.command.endpoint_id, received.tenant
    return endpoint_view(app.write(lambda connection: webhooks.enable(connection, endpoint_id, tenant=tenant)))


@handles(DisableEndpoint, roles=OPERATORS)
def disable_endpoint(app: Application, received: Received[DisableEndpoint]) -> EndpointView:
    """Stop deliveries to an endpoint."""
    endpoint_id, tenant = received.command.endpoint_id, received.tenant
    reason = f"by {received.principal.name}"
    return endpoint_view(app.write(lambda connection: webhooks.disable(connection, endpoint_id, reason, tenant=tenant)))


@handles(RotateSecret, roles=OPERATORS)
def rotate_secret(app: Application, received: Received[RotateSecret]) -> EndpointView:
    """Sign with another secret, and for a while with both."""
    command, tenant = received.command, received.tenant
    with app.read(tenant) as connection:
        url = webhooks.endpoint(connection, command.endpoint_id, tenant=tenant).callback.url
    app.callbacks.check_signing(tenant, command.secret, url)
    row = app.write(
        lambda connection: webhooks.rotate(
            connection, command.endpoint_id, command.secret, command.overlap, tenant=tenant
        )
    )
    return endpoint_view(row)


@handles(DeleteEndpoint, roles=OPERATORS)
def delete_endpoint(app: Application, received: Received[DeleteEndpoint]) -> Nothing:
    """Delete an endpoint."""
    endpoint_id, tenant = received.command.endpoint_id, received.tenant
    app.write(lambda connection: webhooks.delete(connection, endpoint_id, tenant=tenant))
    return Nothing()


@handles(GetEndpoint, roles=EVERY_ROLE)
def get_endpoint(app: Application, received: Received[GetEndpoint]) -> EndpointView:
    """Read one."""
    with app.read(received.tenant) as connection:
        return endpoint_view(webhooks.endpoint(connection, received.command.endpoint_id, tenant=received.tenant))


@handles(ListEndpoints, roles=EVERY_ROLE)
def list_endpoints(app: Application, received: Received[ListEndpoints]) -> Page[EndpointView]:
    """Read a page."""
    asked = received.command
    with app.read(received.tenant) as connection:
        page = webhooks.endpoints(
            connection,
            registered=asked.registered,
            enabled=asked.enabled,
            cursor=asked.cursor,
            limit=asked.limit,
            tenant=received.tenant,
        )
    return page_of(page, endpoint_view, Page[EndpointView])


@handles(GetDelivery, roles=EVERY_ROLE)
def get_delivery(app: Application, received: Received[GetDelivery]) -> DeliveryView:
    """Read one, with its attempts."""
    delivery_id, tenant = received.command.delivery_id, received.tenant
    with app.read(tenant) as connection:
        found = webhooks.delivery(connection, delivery_id, tenant=tenant)
        return delivery_view(found, webhooks.attempts(connection, delivery_id, tenant=tenant))


@handles(ListDeliveries, roles=EVERY_ROLE)
def list_deliveries(app: Application, received: Received[ListDeliveries]) -> Page[DeliveryView]:
    """Read a page."""
    asked = received.command
    with app.read(received.tenant) as connection:
        page = webhooks.deliveries(
            connection,
            endpoint_id=asked.endpoint_id,
            execution_id=asked.execution_id,
            status=asked.status,
            since=asked.since,
            until=asked.until,
            cursor=asked.cursor,
            limit=asked.limit,
            tenant=received.tenant,
        )
    return page_of(page, delivery_view, Page[DeliveryView])


@handles(ReplayDeliveries, roles=OPERATORS, priority=CHANGES)
def replay_deliveries(app: Application, received: Received[ReplayDeliveries]) -> Replayed:
    """Deliver again: one delivery, or the matches of a filter, in transactions of bounded size."""
    asked, tenant = received.command, received.tenant
    if asked.delivery_id is not None:
        _replay_one(app, asked.delivery_id, tenant)
        return Replayed(count=1)
    count, last = 0, None
    # In ascending order of ids, so that a delivery that fails again meanwhile is not found twice.
    while ids := _replayable(app, asked, last, tenant):
        count += _replay(app, ids, tenant)
        last = ids[-1]
    return Replayed(count=count)


def _replay_one(app: Application, delivery_id: UUID, tenant: str) -> None:
    with app.read(tenant) as connection:
        found = webhooks.delivery(connection, delivery_id, tenant=tenant)
        # Raises if the endpoint was deleted.
        endpoint = webhooks.endpoint(connection, found.endpoint_id, tenant=tenant)
    if not endpoint.enabled:
        raise IllegalTransition(f"delivery {delivery_id} cannot be replayed: endpoint {endpoint.id} is disabled")
    _replay(app, [delivery_id], tenant)


def _replay(app: Application, ids: list[UUID], tenant: str) -> int:
    if app.own is not None:
        app.own.deliver(Identity(id_, tenant) for id_ in ids)
    return app.write(lambda connection: webhooks.replay(connection, ids, tenant=tenant))


def _replayable(app: Application, asked: ReplayDeliveries, last: UUID | None, tenant: str) -> list[UUID]:
    with app.read(tenant) as connection:
        return webhooks.replayable(
            connection,
            last,
            endpoint_id=asked.endpoint_id,
            execution_id=asked.execution_id,
            status=asked.status or DeliveryStatus.FAILED,
            since=asked.since,
            until=asked.until,
            tenant=tenant,
        )
