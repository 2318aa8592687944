"""`dspex pause|resume|gates` and `dspex limit set|remove`: what is chosen of what waits, and how much of it at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import click

from workers.cli.entities import as_json, cursor, limit, tenant, verb

SCOPES = ("everything", "lane", "program", "lm", "worker", "label")
"""Options of which one says what a pause is for; without any, it is the tenant."""

_everything = click.option("--everything", is_flag=True, help="All executions.")
_lane = click.option("--lane", type=click.Choice(["high", "default", "bulk"]))
_worker = click.option("--worker", metavar="NAME", help="What one worker process chooses, by the name that it logs.")
_limited = (
    click.option("--program", type=click.UUID, metavar="ID"),
    click.option("--lm", metavar="ALIAS", help="What calls an LM: an alias of DSPEX_LMS, or provider/model."),
    click.option("--label", metavar="NAME=VALUE", help="What has this metadata."),
)


def _steering(group: click.Group, name: str, asked: str, help_text: str, *options: Callable[..., Any]) -> None:
    """Add a command that changes one gate."""

    def command(as_json: bool, tenant: str | None, **given: Any) -> None:
        from workers.cli.ask import ask, show

        kind, named = _scope(tenant, {scope: given.pop(scope) for scope in SCOPES if scope in given})
        arguments = {option: value for option, value in given.items() if value is not None}
        if asked == "set_limit":
            arguments = {"limits": arguments}
        show(ask(asked, kind=kind, name=named, tenant=tenant, **arguments), as_json=as_json)

    command.__doc__ = help_text
    for option in reversed((*options, tenant, as_json)):
        command = option(command)
    group.command(name)(command)


def _scope(tenant: str | None, given: dict[str, Any]) -> tuple[str, UUID | str | None]:
    chosen = {scope: value for scope, value in given.items() if value}
    if len(chosen) > 1 or (not chosen and tenant is None):
        raise click.UsageError(f"give one of {', '.join(f'--{scope}' for scope in given)}; or --tenant alone")
    if not chosen:
        return "tenant", None
    ((kind, named),) = chosen.items()
    if tenant is not None and kind not in ("program", "label"):
        raise click.UsageError(f"--{kind} is of all tenants: leave --tenant out")
    return kind, None if kind == "everything" else named


@click.group("limit")
def limits() -> None:
    """Limits: how much of a tenant, a program, an LM or a label runs at once, or within a minute."""


def add(main: click.Group) -> None:
    """Add the commands."""
    _steering(
        main, "pause", "pause", "Choose no more executions of what is named, until it is resumed. What runs goes on.",
        _everything, _lane, *_limited, _worker, click.option("--reason", help="Told wherever the pause is seen."),
    )  # fmt: skip
    _steering(main, "resume", "resume", "Go on with what was paused.", _everything, _lane, *_limited, _worker)
    verb(
        main, "gates", "list_gates", "List what is paused or limited: by whom, why, and how much of it is in use.",
        click.option("--kind", type=click.Choice([*SCOPES, "tenant"])),
        click.option("--paused", is_flag=True, default=None, help="What is paused."), limit, cursor,
    )  # fmt: skip
    main.add_command(limits)


_number = click.IntRange(1)
_steering(
    limits, "set", "set_limit", "Replace the limits of a tenant, a program, an LM or a label.", *_limited,
    click.option("--in-flight", type=_number, help="Executions that run at once."),
    click.option("--least-in-flight", type=_number, help="With it, --in-flight adapts between the two."),
    click.option("--requests-per-minute", type=_number, help="Executions that begin; of an LM: its calls."),
    click.option("--tokens-per-minute", type=_number, help="Tokens of their LM calls, in and out."),
)  # fmt: skip
_steering(limits, "remove", "remove_limit", "Take the limits of what is named away.", *_limited)
