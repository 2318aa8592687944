"""Prints for the command line. Text from outside is shown safely, in tables, JSON and lines."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Iterable
from typing import Any, TextIO

import click
from rich.text import Text

from dspex.text import ascii_json, masked, visible, visible_json, visible_lines

_ENCODER = json.JSONEncoder(ensure_ascii=False)


def say(text: str, *, err: bool = False) -> None:
    """Print lines."""
    click.echo(visible_lines(masked(text)), err=err)


def say_warnings(lines: Iterable[str]) -> None:
    """Print what is lost of a signature, one line each, on standard error."""
    for line in lines:
        say(f"warning: {line}", err=True)


def say_json(text: str) -> None:
    """Print a JSON text."""
    text = visible_json(text)
    click.echo(text if is_unicode(sys.stdout) else ascii_json(text))


def is_unicode(stream: TextIO) -> bool:
    """Whether a stream can encode every character."""
    return codecs.lookup(stream.encoding or "utf-8").name.startswith("utf")


def json_line(value: Any) -> str:
    """A value as one line of JSON."""
    return visible_json(_ENCODER.encode(value))


def of_known(total: str, number: int, counted: int) -> str:
    """Describe a total, and for how many of the counted executions it is known."""
    if number == counted:
        return total
    return f"{total} ({number} of {counted} known)" if number else "not known"


def cell(text: object) -> Text:
    """The text of a table's cell or title: one line, without markup."""
    return Text(visible(str(text)))
