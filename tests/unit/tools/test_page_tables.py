"""Tables that list what there is: settings, messages, codes of failures, metrics. None is missing, none is too many."""

from __future__ import annotations

import re
from typing import Any

from pydantic_core import PydanticUndefined

from dspex import ErrorCode
from dspex.contract.events import EVENTS
from dspex.contract.options import ExecutionOptions
from dspex.contract.requests import QUERIES, REQUESTS
from dspex.contract.retry_policy import ExecutionPolicy
from tests.pages import ROOT
from workers.settings import Settings
from workers.telemetry.metrics import Metrics

UNLIKE_THEIR_DEFAULT = {"prefetch": "as threads"}
"""Settings whose default is computed, as the table puts it."""


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def rows(path: str, heading: str = "") -> list[list[str]]:
    """The rows of the tables below a heading, cell by cell."""
    page = text(path)
    lines = page[page.index(heading) :].splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]


def as_shown(name: str) -> str:
    """The default of a setting, as the table has it."""
    field = Settings.model_fields[name]
    value: Any = field.get_default(call_default_factory=True)
    assert value is not PydanticUndefined
    if name in UNLIKE_THEIR_DEFAULT:
        return UNLIKE_THEIR_DEFAULT[name]
    if value is None or value == ():
        return ""
    if isinstance(value, bool | int | float):
        return str(value).lower()
    return f"`{value if isinstance(value, str) else '{}'}`"


def test_every_setting_has_its_line_with_its_default() -> None:
    shown = dict[str, str]()
    for names, default, *_ in rows("docs/settings.md")[1:]:
        names_of_line = re.findall(r"`DSPEX_(\w+)`", names)
        defaults = default.split(", ") if len(names_of_line) > 1 else [default]
        shown |= dict(zip((name.lower() for name in names_of_line), defaults, strict=True))
    elsewhere = {name for name in Settings.model_fields if name.startswith("webhook_")} - {"webhook_threads"}
    expected = {name: as_shown(name) for name in Settings.model_fields if name not in elsewhere}
    assert shown == expected


def types(cell: str) -> set[str]:
    """`dspex.a.b.v1`, `.c`: the second is `dspex.a.c.v1`."""
    found, last = set[str](), ""
    for name in re.findall(r"`([a-z_.0-9]*\.v1|\.[a-z_]+)`", cell):
        last = name if name.startswith("dspex.") else f"{last.rsplit('.', 2)[0]}{name}.v1"
        found.add(last)
    return found


def test_every_message_has_its_place() -> None:
    table = rows("docs/messages.md", "## What may be asked")
    queries = [types(cell) for cell, what, *_ in table if what.startswith("queries")]
    commands = [types(cell) for cell, *_ in table if "dspex." in cell and not types(cell) & set(EVENTS)]
    events = [types(cell) for cell, *_ in table if types(cell) & set(EVENTS)]
    assert set().union(*commands) == set(REQUESTS)
    assert set().union(*queries) == set(QUERIES)
    assert set().union(*events) | {"dspex.execution.ended.v1", "dspex.reply.v1"} == set(EVENTS)


def test_every_code_of_a_failure_is_told() -> None:
    (codes,) = re.findall(r"a code of a closed set: (.*?)\.\n", text("docs/promises.md"), re.DOTALL)
    assert set(re.findall(r"`(\w+)`", codes)) == set(ErrorCode)


def test_fields_that_are_listed_are_those_of_the_models() -> None:
    page = text("docs/promises.md")
    for name, model in (("policy", ExecutionPolicy), ("options", ExecutionOptions)):
        (fields,) = re.findall(rf"`{name}: {{([\w,\s]+)}}`", page)
        assert set(re.split(r",\s+", fields)) == set(model.model_fields), name


def test_every_metric_has_its_line() -> None:
    ours = [it for it in Metrics().registry.collect() if it.name.startswith("dspex_")]
    there = {it.name if it.type == "gauge" else f"{it.name}_total" for it in ours}
    table = {
        cells[0].strip("`"): cells[1] for cells in rows("docs/operations.md", "## Metrics") if "dspex_" in cells[0]
    }
    assert set(table) == there
    for found in Metrics().registry.collect():
        labels = {name for sample in found.samples for name in sample.labels}
        if found.name.startswith("dspex_") and labels:
            name = found.name if found.type == "gauge" else f"{found.name}_total"
            assert set(re.findall(r"`(\w+)`", table[name])) == labels
