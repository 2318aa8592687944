"""Converts the store's rows to the contract's views. Fields with the same name in both are copied."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from functools import cache
from operator import attrgetter
from typing import TypeVar

from pydantic import BaseModel

from adapters.port import ModuleCode
from dspex import ErrorDetail, Signature
from dspex.contract.gates import GateKind, GateView, Limits, Paused, Scope
from dspex.contract.results import (
    DeliveryAttempt,
    DeliveryView,
    EndpointView,
    ExecutionView,
    Page,
    ProgramCode,
    ProgramView,
    RejectedMessageView,
    SignatureView,
    Waiting,
)
from store.database import pages
from store.database.tenancy import ALL
from store.executions import Execution
from store.gates import Gate
from store.programs import Program
from store.rejections import RecordedRejection
from store.signatures import SignatureRow
from store.webhooks import Delivery, Endpoint, LoggedAttempt

Row = TypeVar("Row")
View = TypeVar("View", bound=BaseModel)


def signature_view(row: SignatureRow, given: object = None) -> SignatureView:
    """A signature.

    Args:
        given: what it was given as: the view says what is lost of it.
    """
    return _view(
        SignatureView,
        row,
        signature_id=row.id,
        digest=row.signature.digest,
        compatibility=None,
        warnings=_warnings(given),
    )


def program_view(row: Program, code: tuple[ModuleCode, bool] | None = None, *, given: object = None) -> ProgramView:
    """A program.

    Args:
        code: of its own module, and whether the program was built with it.
        given: what its signature was given as: the view says what is lost of it.
    """
    own = None if code is None else _code_view(*code)
    return _view(ProgramView, row, program_id=row.id, code=own, warnings=_warnings(given))


def _warnings(given: object) -> tuple[str, ...]:
    return given.warnings if isinstance(given, Signature) else ()


def _code_view(code: ModuleCode, built: bool) -> ProgramCode:
    distribution, _, version = code.distribution.rpartition(" ")
    is_one = bool(distribution) and " " not in distribution
    return ProgramCode(
        module=code.reference,
        distribution=distribution if is_one else None,
        version=version if is_one else None,
        digest=code.digest,
        built=built,
    )


def execution_view(row: Execution, waiting: Waiting | None = None) -> ExecutionView:
    """An execution; `waiting`: what it waits for, if that was looked up."""
    return _view(
        ExecutionView,
        row,
        execution_id=row.id,
        executed_at=row.started_at,
        callback=row.callback or row.program_callback,
        metadata=dict(row.metadata),
        extra_outputs=dict(row.extra_outputs),
        waiting=waiting,
        timeline=[{"status": t.status, "at": t.at, "attempt": t.attempt, "by": t.by} for t in row.timeline],
    )


def rejected_message_view(row: RecordedRejection) -> RejectedMessageView:
    """A rejected message. A body that is not JSON text is encoded in base64."""
    text = _text(row.body)
    return _view(
        RejectedMessageView,
        row,
        rejection_id=row.id,
        error=ErrorDetail(code=row.error_code, message=row.error_message),
        body=base64.b64encode(row.body).decode() if text is None else text,
        body_encoding="base64" if text is None else "utf-8",
    )


def _text(body: bytes) -> str | None:
    try:
        return None if b"\x00" in body else body.decode()
    except UnicodeDecodeError:
        return None


def endpoint_view(row: Endpoint) -> EndpointView:
    """An endpoint."""
    until = row.previous_until if row.previous_secret else None
    return _view(EndpointView, row, endpoint_id=row.id, previous_until=until)


def delivery_view(row: Delivery, log: Sequence[LoggedAttempt] = ()) -> DeliveryView:
    """A delivery, with its attempts if they were read."""
    attempts = tuple(DeliveryAttempt.model_validate(vars(attempt)) for attempt in log)
    return _view(DeliveryView, row, delivery_id=row.id, log=attempts)


def gate_view(gate: Gate) -> GateView:
    """A gate: its pause and its limits, if it has them."""
    key, limited = gate.key, gate.limits.in_flight is not None
    paused = Paused(by=gate.paused_by or "", at=gate.paused_at, reason=gate.paused_reason) if gate.paused_at else None
    return GateView(
        scope=Scope(kind=GateKind(key.kind), name=key.name or None),
        shared=key.tenant == ALL,
        paused=paused,
        limits=Limits(**vars(gate.limits)) if gate.limits else None,
        in_flight=gate.running if limited else None,
        allowed=(gate.allowed or gate.limits.in_flight) if limited else None,
        closed_until=gate.closed_until,
    )


def _view(of: type[View], row: object, **given: object) -> View:
    """Make a view of a row: fields are copied by name, except for those given."""
    names, same = _same(of, tuple(given))
    return of.model_validate(dict(zip(names, same(row), strict=True)) | given)


@cache
def _same(
    of: type[BaseModel], given: tuple[str, ...]
) -> tuple[tuple[str, ...], Callable[[object], tuple[object, ...]]]:
    """The fields of a view that are not given, and a function that reads them from a row."""
    names = tuple(name for name in of.model_fields if name not in given)
    return names, attrgetter(*names)


def page_of(page: pages.Page[Row], view: Callable[[Row], View], of: type[Page[View]]) -> Page[View]:
    """A page of views."""
    return of(items=tuple(map(view, page.items)), next_cursor=page.next_cursor)
