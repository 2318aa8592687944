"""Splits an LM's answer into the texts of its outputs.

DSPy's prompt asks for sections under markers:

    [[ ## reasoning ## ]]
    ...
    [[ ## answer ## ]]
    Paris
    [[ ## completed ## ]]

LMs write the markers indented, bold, in headings and code fences, at the end of a line, twice, in drafts, and in
another order. The last section of each name outside of drafts counts. No marker may become part of a value: a value
that still contains one, or a part of one, is refused. The time is linear in the length of the answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

from adapters.native.answers.drafts import Span, drafts, stray_end, without_template

END: Final = "completed"
"""The name of the last marker."""

_MARKER = re.compile(
    r"\\?\[\\?\[[ \t]*#{2,3}[ \t]*[*_`]{0,3}(?P<name>\w{1,100}?)[*_`]{0,3}[ \t]*#{2,3}[ \t]*\\?\]\\?\]"
)
_BULLETS = re.compile(r"[ \t]*(?:[>#*+•-][ \t]*|\d{1,3}[.)][ \t]+)*+[*_`~]*+[ \t]*+")
"""Allowed before a marker that begins its line: indents, headings, quotes, lists, bold."""

_MARKUP = re.compile(r"[*_`~]{1,3}\Z")
_AFTER = re.compile(r"[*_`~]{0,3}[ \t]*:?[*_`~]{0,3}(?=\s|\Z)")
_LINE_ENDS = re.compile(r"[ \t\r]*+(?:\n|\Z)")
_FENCE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})[^\n`]*$", re.MULTILINE)
_QUOTED = re.compile(r"^[ \t]*>[ \t]?", re.MULTILINE)
_BEGIN, _AT_END = "[[ ## ", " ## ]]"
_ODD = re.compile(r"[<\u25c1]|```|~~~|\[/?think\]", re.IGNORECASE)
"""The beginnings of drafts, template tokens and code fences."""

_PIECE = re.compile(r"\[\\?\[[ \t]*##|##[ \t]*\\?\]\\?\]")


class Unclear(Exception):
    """The answer, or a part of it, is ambiguous or cannot be parsed. The text names the part."""


@dataclass(frozen=True)
class _Mark:
    """A marker.

    Attributes:
        start, end: the span of the marker with its bullets, bold and colon.
        markup: bold or similar markup that begins before the marker, and does not end right after it.
        quoted: whether the marker and its section are in a quotation (`> `).
        begins_line, ends_line: whether it is the first, or the last, text in its line.
    """

    name: str
    start: int
    end: int
    markup: str
    quoted: bool
    begins_line: bool
    ends_line: bool


def sections(answer: str, outputs: Collection[str], inputs: Collection[str] = ()) -> dict[str, str]:
    """The text of each output that has a section.

    Args:
        outputs, inputs: the valid names of markers, besides `completed`.
    """
    plain = _plain(answer, outputs)
    if plain is not None:
        return plain
    text = without_template(answer)
    marks = _marks(text, outputs)
    hidden = drafts(text, [mark.start for mark in marks])
    marks = _outside(marks, hidden)
    marks = _structure(marks, {*outputs, END})
    found: dict[str, str] = {}
    ended = False
    for mark, following in zip_longest(marks, marks[1:]):
        ended = ended or mark.name == END
        if ended and mark.name in inputs and found:
            break  # The LM has gone on to invent another task.
        if mark.name not in outputs:
            continue
        span = _trimmed(text, mark.end, len(text) if following is None else following.start, hidden)
        if span is None:
            continue
        value = _unfenced(text[span[0] : span[1]].strip())
        value = _unmarked(_QUOTED.sub("", value) if mark.quoted else value, mark.markup).strip()
        # In some answers the same marker, with no text after it, closes the section.
        if value or mark.name not in found:
            found[mark.name] = value
    return found


def _plain(answer: str, outputs: Collection[str]) -> dict[str, str] | None:
    """The sections of an answer that is exactly in the format of the prompt, as most are; None for any other."""
    if _ODD.search(answer):
        return None
    before, *parts = answer.split(_BEGIN)
    found: dict[str, str] = {}
    ended = False
    if before.strip():
        return None
    for number, part in enumerate(parts, 1):
        name, _, rest = part.partition(_AT_END)
        alone = not rest.strip() if number == len(parts) and not rest.startswith("\n") else rest.startswith("\n")
        in_lines = number == len(parts) or part.endswith("\n")
        if ended or not alone or not in_lines or "##" in rest or name in found:
            return None
        ended = name == END and name not in outputs
        if not ended:
            if name not in outputs:
                return None
            found[name] = rest.strip()
    return found or None


def without_drafts(answer: str, names: Collection[str] = ()) -> str:
    """The answer without its drafts, for formats without markers. Tags with these names do not begin a draft."""
    text = without_template(answer)
    places = [found.start() for found in re.finditer(r"[{<](?!/)", text)]
    kept, position = [], 0
    for start, end in drafts(text, places, but=names):
        kept.append(text[position:start])
        position = end
    return "".join([*kept, text[position:]])


def check(value: Any, name: str) -> None:
    """Check that no text in a value contains a part of the format.

    Raises:
        Unclear: it contains a marker, a part of one, or the end tag of a draft without its start.
    """
    match value:
        case str():
            if "##" in value and _PIECE.search(value):
                raise Unclear(f"{name}: holds a marker of the prompt, or a piece of one")
            if value.startswith("]]") or value.endswith("[["):
                raise Unclear(f"{name}: holds a piece of a marker")
            if ("</" in value or "[/" in value or "◁/" in value) and stray_end(value):
                raise Unclear(f"{name}: holds the end of a draft")
        case Mapping():
            for key, item in value.items():
                check(key, name)
                check(item, name)
        case list() | tuple():
            for item in value:
                check(item, name)
        case _:
            pass


def _marks(text: str, outputs: Collection[str]) -> list[_Mark]:
    """All markers of a text. Names are compared exactly first, then ignoring case."""
    folded = {name.casefold(): name for name in outputs} | {END: END}
    marks: list[_Mark] = []
    before = 0
    for found in _MARKER.finditer(text):
        line = text.rfind("\n", before, found.start()) + 1
        first_in_line = line > 0 or before == 0
        line = line or before
        start, begins_line, markup = found.start(), False, ""
        if first_in_line and (bullets := _BULLETS.match(text, line, found.start())) and bullets.end() == start:
            start, begins_line = line, True
        elif not text[line:start].strip():
            begins_line = first_in_line
        if told := _MARKUP.search(text, max(line, found.start() - 3), found.start()):
            markup, start = told[0], min(start, told.start())
        end = found.end()
        if markup and text.startswith(markup, end):
            end, markup = end + len(markup), ""
        after = _AFTER.match(text, end)
        if after is not None:
            markup = "" if markup and markup in after[0] else markup
            end = after.end()
        name = found["name"] if found["name"] in outputs else folded.get(found["name"].casefold(), found["name"])
        quoted = begins_line and ">" in text[start : found.start()]
        marks.append(_Mark(name, start, end, markup, quoted, begins_line, _LINE_ENDS.match(text, end) is not None))
        before = found.end()
    return marks


def _outside(marks: list[_Mark], spans: list[Span]) -> list[_Mark]:
    kept, number = [], 0
    for mark in marks:
        while number < len(spans) and spans[number][1] <= mark.start:
            number += 1
        if number == len(spans) or mark.end <= spans[number][0] or mark.start < spans[number][0]:
            kept.append(mark)
    return kept


def _structure(marks: list[_Mark], names: Collection[str]) -> list[_Mark]:
    """The markers that begin a section; the others are only mentioned in a text.

    A marker at the beginning of its line begins a section, whatever its name, and so does a marker of an output at the
    end of its line. A marker with text on both sides does if its line is a row of sections, and if no other section has
    its name.
    """
    counts = Counter(mark.name for mark in marks)
    kept: list[_Mark] = []
    in_row = False
    for number, mark in enumerate(marks):
        in_row = mark.begins_line or (in_row and number > 0 and not marks[number - 1].ends_line)
        known = mark.name in names
        if mark.begins_line or (known and mark.ends_line) or (known and in_row and counts[mark.name] == 1):
            kept.append(mark)
    return kept


def _trimmed(text: str, start: int, end: int, spans: list[Span]) -> Span | None:
    """A section without the drafts at its beginning and end; None if it is only drafts."""
    inside = [span for span in spans if start <= span[0] < end or start < span[1] <= end]
    drafted = False
    for first, last in inside:
        if text[start:first].strip():
            break
        start, drafted = min(last, end), True
    for first, last in reversed(inside):
        if first < start or text[last:end].strip():
            break
        end, drafted = first, True
    return None if drafted and not text[start:end].strip() else (start, end)


def _unfenced(value: str) -> str:
    """The value without the end of a code fence that began before the section."""
    if not value.endswith(("```", "~~~")):
        return value
    fences = list(_FENCE.finditer(value))
    if len(fences) % 2 == 1 and fences[-1].end() == len(value):
        return value[: fences[-1].start()].rstrip()
    return value


def _unmarked(value: str, markup: str) -> str:
    """The value without the end of markup that began before the marker."""
    if markup and value.endswith(markup) and value.count(markup) % 2 == 1:
        return value[: -len(markup)].rstrip()
    return value
