"""Finds drafts: text that an LM writes for itself before its answer, such as `<think>...</think>`."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection
from typing import Final

Span = tuple[int, int]

_NAMES: Final = (
    "think|thinking|thought|thoughts|reasoning|reflection|scratchpad|scratch_pad|antthinking|inner_monologue|analysis"
)
_TAG = rf"(?:<(?P<tag>{_NAMES})(?:\s[^<>\n]{{0,200}})?>|\[(?P<square>THINK)\]|◁(?P<kimi>think)▷)"

_OPENS = re.compile(rf"(?:^|(?<=\]\])|(?<=\]\]\*\*))[ \t]*{_TAG}(?P<alone>[ \t]*$)?", re.IGNORECASE | re.MULTILINE)
"""Where a draft may begin: at the start of a line, or after a marker."""

_CLOSES = re.compile(rf"</(?P<tag>{_NAMES})\s*>|\[/(?P<square>THINK)\]|◁/(?P<kimi>think)▷", re.IGNORECASE)

_ENDS_LINE = re.compile(r"[ \t\r]*+(?:\n|\Z|[*_`#> ]*+\\?[\[{<])")
"""After the end tag of a draft: the end of the line, or the answer."""

_FINAL = re.compile(r"<\|channel\|>final(?:[ \t][^<\n]{0,100})?<\|message\|>")
"""A marker of gpt-oss's format, if the server does not remove it. The text before it is a draft."""

_TOKENS = re.compile(r"(?:\s*(?:<\|[\w▁]{1,40}\|>|<\uff5c[\w▁]{1,40}\uff5c>|</s>|<end_of_turn>))++\s*\Z")
"""The end tokens of chat templates, if the server does not remove them."""


def without_template(answer: str) -> str:
    """The answer without the tokens of its chat template."""
    final = None
    for final in _FINAL.finditer(answer):  # noqa: B007
        pass
    answer = answer if final is None else answer[final.end() :]
    tail = max(0, len(answer) - 500)
    return answer[:tail] + _TOKENS.sub("", answer[tail:])


def drafts(answer: str, answers_at: list[int], but: Collection[str] = ()) -> list[Span]:
    """The drafts of an answer, in order.

    An unclosed draft reaches to the end of the text, if its tag is alone in its line or something like an answer
    follows. An end tag may lack its start tag, because the prompt ends with that; then everything before the last such
    end tag is a draft.

    Args:
        answers_at: the positions of text that looks like an answer, in order.
        but: names of tags that do not begin a draft.
    """
    spans: list[Span] = []
    ends: dict[str, list[Span]] = defaultdict(list)
    for end in _CLOSES.finditer(answer):
        if _name(end) not in but:
            ends[_kind(end)].append(end.span())
    last_answer = answers_at[-1] if answers_at else -1
    position = 0
    for opened in _OPENS.finditer(answer):
        if opened.start() < position or _name(opened) in but:
            continue
        closing = ends[_kind(opened)]
        number = bisect_left(closing, (opened.end(),))
        if number < len(closing):
            position = closing[number][1]
            spans.append((opened.start(), position))
        elif opened["alone"] is not None or last_answer >= opened.end():
            spans.append((opened.start(), len(answer)))
            break
    orphans = [
        end
        for found in ends.values()
        for start, end in found
        if end <= last_answer and _ENDS_LINE.match(answer, end) and not _within(start, spans)
    ]
    if orphans:
        return [(0, max(orphans)), *(span for span in spans if span[0] >= max(orphans))]
    return spans


def stray_end(value: str) -> bool:
    """Whether a text has an end tag without a start tag, at its beginning or at the end of a line."""
    for found in _CLOSES.finditer(value):
        line_ends = value[found.end() : found.end() + 1] in ("", "\n")
        if (line_ends or found.start() == 0) and f"<{_name(found)}" not in value[: found.start()].lower():
            return True
    return False


def _within(position: int, spans: list[Span]) -> bool:
    number = bisect_left(spans, (position + 1,)) - 1
    return number >= 0 and spans[number][0] <= position < spans[number][1]


def _name(match: re.Match[str]) -> str:
    return (match["tag"] or match["square"] or match["kimi"]).lower()


def _kind(match: re.Match[str]) -> str:
    return ("tag " if match["tag"] else "square " if match["square"] else "kimi ") + _name(match)
