"""The work of `dspex dead-letter`: sends a request for each kind, and prints the answers together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from dspex.client.interface import Interface
from dspex.contract.results import Affected
from dspex.contract.status import DeadLetterStatus
from dspex.errors import NotFound, SettingsError
from workers.cli.ask import MAX_IDS, asking, show, show_list, zoned
from workers.cli.batches import counted, in_batches, in_parts
from workers.cli.output import say, say_json
from workers.settings import load_settings

RUNS_LATER = "Executions are pending and due: a worker on this database runs them, or `dspex run` while it lasts."
_DONE = {"replay": "Replayed", "discard": "Discarded"}
NO_BROKER = "DSPEX_BROKER_URL: messages are sent again to RabbitMQ (amqp://user:password@host:5672/), there is none"


def show_dead_letters(
    kinds: Sequence[str],
    filters: Mapping[str, Any],
    tenant: str | None,
    *,
    discarded: bool,
    limit: int,
    cursor: str | None,
    as_json: bool,
) -> None:
    """List dead letters: a table for each kind, or one JSON object with a page for each kind."""
    given: dict[str, Any] = zoned(filters) | {"limit": limit, "cursor": cursor}
    with asking(load_settings(), tenant) as client:
        pages = {kind: _list(client, kind, discarded, given) for kind in kinds}
        if not any(page.items for page in pages.values()):
            client.refuse_others(value for value in filters.values() if isinstance(value, UUID))
    if len(pages) == 1:
        show(pages[kinds[0]], as_json=as_json)
    elif as_json:
        _show_json(pages)
    else:
        for kind, page in pages.items():
            say(f"{kind}s:")
            show_list(page.items)
            if page.next_cursor:
                say(f"More: --kind {kind} --cursor {page.next_cursor}", err=True)


def _list(client: Interface, kind: str, discarded: bool, given: dict[str, Any]) -> Any:
    if kind == "message":
        status = DeadLetterStatus.DISCARDED if discarded else DeadLetterStatus.DEAD
        return client.list_rejected_messages(status=status, **given)
    return client.list_dead_executions(discarded=discarded, **given)


def show_dead_letter(dead_letter_id: UUID, tenant: str | None, *, as_json: bool) -> None:
    """Show the dead letter with this id, of either kind."""
    with asking(load_settings(), tenant) as client:
        found: BaseModel
        try:
            found = client.get_execution(dead_letter_id)
        except NotFound:
            try:
                found = client.get_rejected_message(dead_letter_id)
            except NotFound:
                raise NotFound(f"there is no execution and no rejected message {dead_letter_id}") from None
    show(found, as_json=as_json)


def change_dead_letters(
    verb: str,
    kinds: Sequence[str],
    ids: Sequence[UUID],
    filters: Mapping[str, Any],
    tenant: str | None,
    traceparent: str | None,
    *,
    as_json: bool,
) -> None:
    """Replay or discard dead letters. An id is looked up in both kinds.

    Raises:
        SettingsError: messages cannot be replayed without a broker.
        NotFound: an id belongs to another tenant. Nothing was changed.
    """
    settings = load_settings()
    alone = settings.embedded and verb == "replay"
    if alone:
        # A message in the in-process broker would be lost with the process.
        kinds = [kind for kind in kinds if kind != "message"]
        if not kinds:
            raise SettingsError(NO_BROKER)
    with asking(settings, tenant) as client:
        client.refuse_others([*ids, *(value for value in filters.values() if isinstance(value, UUID))])
        changed = {kind: _change(client, verb, kind, ids, zoned(filters), traceparent) for kind in kinds}
    if as_json:
        _show_json(changed)
    else:
        told = (counted(answer.count, kind) for kind, answer in changed.items())
        say(f"{_DONE[verb]} {' and '.join(told)}.")
    for kind, answer in changed.items():
        if answer.refused:
            say(f"{counted(answer.refused, kind)} cannot be replayed: named by ID, it says why.", err=True)
    if alone and changed["execution"].count:
        say(RUNS_LATER, err=True)


def _change(
    client: Interface,
    verb: str,
    kind: str,
    ids: Sequence[UUID],
    filters: Mapping[str, Any],
    traceparent: str | None,
) -> Affected:
    change = partial(getattr(client, f"{verb}_{kind}s"), traceparent=traceparent)
    return in_parts(change, ids, MAX_IDS) if ids else in_batches(change, filters, f"{kind}s {_DONE[verb].lower()}")


def _show_json(answers: Mapping[str, BaseModel]) -> None:
    named = {f"{kind}s": answer.model_dump(mode="json") for kind, answer in answers.items()}
    say_json(json.dumps(named, indent=2, ensure_ascii=False))
