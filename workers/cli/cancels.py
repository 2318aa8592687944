"""`dspex execution cancel`: one execution, some, or all that match a filter."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import click

from workers.cli.entities import as_json, error_code, label, tenant, traceparent, when

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Age(click.ParamType[datetime]):
    """An age, such as 90s, 30m, 2h or 7d, as the time that long ago."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Convert an option."""
        if isinstance(value, datetime):
            return value
        found = re.fullmatch(r"(\d{1,6})([smhd])", value)
        if found is None:
            self.fail(f"{value!r} is no age: give a number and s, m, h or d, such as 30m", param, ctx)
        return datetime.now(UTC) - timedelta(**{_UNITS[found[2]]: int(found[1])})


@click.command()
@click.argument("ids", nargs=-1, type=click.UUID, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All executions of the tenant that have not ended.")
@click.option("--program", metavar="NAME|ID", help="Those of this program.")
@click.option("--status", type=click.Choice(["pending", "running"]), help="By default both.")
@label
@click.option("--lane", type=click.Choice(["high", "default", "bulk"]), help="Those of this lane.")
@error_code
@click.option("--older-than", type=Age(), metavar="AGE", help="Inserted so long ago: 90s, 30m, 2h, 7d.")
@when("since")
@when("until")
@click.option("--dry-run", is_flag=True, help="Only count those of a filter; nothing is cancelled.")
@tenant
@traceparent
@as_json
def cancel(
    ids: tuple[UUID, ...],
    everything: bool,
    labels: tuple[str, ...],
    older_than: datetime | None,
    dry_run: bool,
    tenant: str | None,
    traceparent: str | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """Cancel executions that have not ended: by ID, or by a filter, in batches.

    What is submitted after the command began is left alone. Ctrl-C stops it between two batches.
    """
    from workers.cli.cancel_answers import cancel_executions

    given: dict[str, Any] = {name: value for name, value in filters.items() if value is not None}
    if older_than is not None:
        if "until" in given:
            raise click.UsageError("give --older-than or --until, not both")
        given["until"] = older_than
    if labels:
        given["labels"] = labels
    if [bool(ids), everything, bool(given)].count(True) != 1:
        raise click.UsageError(
            "give IDs, a filter (--program, --status, --label, --lane, --error-code, --older-than, --since, --until), "
            "or --all"
        )
    if ids and dry_run:
        raise click.UsageError("--dry-run counts those of a filter")
    cancel_executions(ids, given, tenant, traceparent, dry_run=dry_run, as_json=as_json)
