"""The calls of `deploy.sql`: functions of the store, sample arguments, and descriptions of their statements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import UUID

from dspex import ExecutionOptions, Usage
from dspex.contract.callback import Callback
from store.database.identity import Identity
from store.event_outbox import OutboxEntry
from store.executions import Carried, Finish, Lease, Request, Retry
from store.webhooks import End
from store.webhooks.fan_out import endpoint_id_of

ID = Identity(UUID(int=1), "default")
LEASE = Lease("worker", 30.0)
REQUEST = Request(ID.id, ID.id, {}, ExecutionOptions(), "/", idempotency_key="key")
FINISH = Finish(ID.id, ID.id, 1, 1.0, Usage(), {})
RETRY = Retry(ID.id, 1, 1.0, 1, SimpleNamespace(code="timeout", message="", problems=()), Usage(), Carried())  # type: ignore[arg-type]
CALLBACK = Callback(url="https://receiver.example.com/", secret="A_WEBHOOK_SECRET")  # noqa: S106
ENTRY = OutboxEntry(ID.id, 2)
END = End(ID.id, ID.tenant, 2, "completed", CALLBACK, registered=True)
ROW = SimpleNamespace(id=ID.id, tenant=ID.tenant)
WAITS = SimpleNamespace(**vars(ROW), program_id=ID.id, lane=1, group_key="", run_at=None, holder="")
ENDPOINT = SimpleNamespace(
    id=endpoint_id_of(ID.tenant, CALLBACK),
    tenant=ID.tenant,
    **CALLBACK.model_dump(),
    registered=True,
    enabled=True,
    disabled_reason=None,
    disabled_at=None,
    failing_since=None,
    failing_left=None,
    previous_secret=None,
    previous_left=None,
    previous_until=None,
    lock_version=1,
    inserted_at=None,
    updated_at=None,
)


class Statement(NamedTuple):
    """The description of a statement.

    Attributes:
        runs: when it runs.
        needs: the indexes that it needs to be quick.
        answer: the prepared result rows, so that the statements after it are run, too.
        only: the only database that has this statement.
    """

    name: str
    runs: str
    needs: tuple[str, ...]
    answer: tuple[Any, ...] = ()
    only: str | None = None


@dataclass(frozen=True)
class Call:
    """A function of the store, and the statements that it runs, in order."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    statements: tuple[Statement, ...]
    options: dict[str, Any] = field(default_factory=dict)
