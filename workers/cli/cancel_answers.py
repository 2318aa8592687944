"""The work of `dspex execution cancel`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from dspex.client.interface import Interface
from workers.cli.ask import MAX_IDS, asking, named, show, zoned
from workers.cli.batches import counted, in_batches, in_parts
from workers.cli.output import say, say_json
from workers.settings import load_settings


def cancel_executions(
    ids: Sequence[UUID],
    filters: Mapping[str, Any],
    tenant: str | None,
    traceparent: str | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Cancel executions, and print what has become of the one, or of how many.

    Raises:
        NotFound: an id belongs to another tenant, or there is no such program. Nothing was changed.
    """
    with asking(load_settings(), tenant) as client:
        client.refuse_others(ids)
        if len(ids) == 1:
            show(client.cancel_execution(ids[0], traceparent=traceparent), as_json=as_json)
            return
        cancel = partial(client.cancel_executions, traceparent=traceparent)
        if ids:
            answer = in_parts(cancel, ids, MAX_IDS)
        else:
            how = {"dry_run": True} if dry_run else {}
            answer = in_batches(partial(cancel, **how), _found(client, filters), "counted" if dry_run else "cancelled")
    if as_json:
        say_json(answer.model_dump_json(indent=2))
    else:
        told = counted(answer.count, "execution")
        say(f"{told} would be cancelled." if dry_run else f"Cancelled {told}.")


def _found(client: Interface, filters: Mapping[str, Any]) -> dict[str, Any]:
    """The filters as the verb takes them: a program by its id, which may be archived, and labels as metadata."""
    given = zoned(filters)
    program, labels = given.pop("program", None), given.pop("labels", ())
    if program is not None:
        given["program_id"] = _program(client, program)
    if labels:
        given["metadata"] = named("--label", labels)
    return given


def _program(client: Interface, given: str) -> UUID:
    try:
        return client.get_program(UUID(given)).program_id
    except ValueError:
        return client.find_program(given).program_id
