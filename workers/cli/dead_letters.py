"""`dspex dead-letter`: failed executions and rejected messages, listed, shown, replayed and discarded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import click

from workers.cli.entities import as_json, cursor, limit, of_program, tenant, traceparent, when

KINDS = ("message", "execution")
ONLY_OF = {"program_id": "execution", "queue": "message"}
"""Filters that apply to one kind only."""


@click.group("dead-letter")
def dead_letter() -> None:
    """Failed executions and rejected messages: list, show, replay, discard."""


def _with(*parameters: Callable[..., Any]) -> Callable[..., Any]:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for parameter in reversed(parameters):
            command = parameter(command)
        return command

    return decorate


_kind = click.option("--kind", type=click.Choice(KINDS), help="Those of one kind; both by default.")
_filters = _with(
    of_program,
    click.option("--error-code"),
    click.option("--queue", help="Messages that were rejected from this queue."),
    when("since"),
    when("until"),
)
_ids = click.argument("ids", nargs=-1, type=click.UUID, metavar="[ID]...")
_all = click.option("--all", "everything", is_flag=True, help="All dead letters.")


@dead_letter.command("list")
@_with(_kind, _filters, click.option("--discarded", is_flag=True, help="Those that were discarded."))
@_with(limit, cursor, tenant, as_json)
def list_dead_letters(
    kind: str | None,
    discarded: bool,
    limit: int,
    cursor: str | None,
    tenant: str | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """List dead letters, newest first: failed executions, and messages that were rejected."""
    from workers.cli.dead_letter_answers import show_dead_letters

    kinds, given = _kinds(kind, filters), _given(filters)
    if cursor is not None and len(kinds) > 1:
        raise click.UsageError("--cursor is of one list: give --kind")
    show_dead_letters(kinds, given, tenant, discarded=discarded, limit=limit, cursor=cursor, as_json=as_json)


@dead_letter.command()
@click.argument("dead_letter_id", type=click.UUID, metavar="ID")
@_with(tenant, as_json)
def show(dead_letter_id: UUID, tenant: str | None, as_json: bool) -> None:
    """Show one of either kind: an execution with its timeline, or a message with its body."""
    from workers.cli.dead_letter_answers import show_dead_letter

    show_dead_letter(dead_letter_id, tenant, as_json=as_json)


def _change(verb: str, told: str) -> None:
    """Make a command that changes dead letters, given by id or filter."""

    @dead_letter.command(verb, help=told)
    @_with(_ids, _all, _kind, _filters, tenant, traceparent, as_json)
    def change(
        ids: tuple[UUID, ...],
        everything: bool,
        kind: str | None,
        tenant: str | None,
        traceparent: str | None,
        as_json: bool,
        **filters: Any,
    ) -> None:
        from workers.cli.dead_letter_answers import change_dead_letters

        chosen = _chosen(ids, everything, filters)
        change_dead_letters(verb, _kinds(kind, filters), ids, chosen, tenant, traceparent, as_json=as_json)


_change(
    "replay",
    """Run failed executions again under their ids, and send rejected messages again: by ID, or by a filter.

    Those that were discarded are taken where they are named.
    """,
)
_change("discard", "Take dead letters off the list: by ID, or by a filter. Executions and messages are kept.")


def _given(filters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in filters.items() if value is not None}


def _chosen(ids: tuple[UUID, ...], everything: bool, filters: dict[str, Any]) -> dict[str, Any]:
    given = _given(filters)
    if [bool(ids), everything, bool(given)].count(True) != 1:
        raise click.UsageError(
            "give IDs, or a filter (--program, --error-code, --queue, --since, --until), or --all for every dead letter"
        )
    return given


def _kinds(kind: str | None, filters: dict[str, Any]) -> tuple[str, ...]:
    """The kinds that the options select."""
    kinds: tuple[str, ...] = KINDS if kind is None else (kind,)
    for name in _given(filters):
        kinds = tuple(k for k in kinds if k == ONLY_OF.get(name, k))
    if not kinds:
        raise click.UsageError("only executions have a --program, and only messages a --queue")
    return kinds
