"""How the command line prints: text from outside is text, in tables, JSON and lines alike."""

from __future__ import annotations

import codecs
import json
import sys
from typing import Any, TextIO

import click
from rich.text import Text

from dspex.text import ascii_json, masked, visible, visible_json, visible_lines

_ENCODER = json.JSONEncoder(ensure_ascii=False)


def say(text: str, *, err: bool = False) -> None:
    """Print lines."""
    click.echo(visible_lines(masked(text)), err=err)


def say_json(text: str) -> None:
    """Print a JSON text."""
    text = visible_json(text)
    click.echo(text if is_unicode(sys.stdout) else ascii_json(text))


def is_unicode(stream: TextIO) -> bool:
    """Whether a stream takes every character."""
    return codecs.lookup(stream.encoding or "utf-8").name.startswith("utf")


def json_line(value: Any) -> str:
    """A value as one line of JSON."""
    return visible_json(_ENCODER.encode(value))


def of_known(total: str, number: int, counted: int) -> str:
    """What is said of a total over so many of the executions that were counted: those that it is known of."""
    if number == counted:
        return total
    return f"{total} ({number} of {counted} known)" if number else "not known"


def cell(text: object) -> Text:
    """What a cell of a table, or its title, says: no markup, one line."""
    return Text(visible(str(text)))
