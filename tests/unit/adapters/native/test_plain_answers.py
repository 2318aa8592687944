"""Answers that are just as the prompt asks for them are read by a shorter way, to the same values."""

from __future__ import annotations

import random
from unittest.mock import patch

from adapters.native.answers import sections as reading

OUTPUTS = ("answer", "score", "label")
PIECES = [
    *(f"[[ ## {name} ## ]]" for name in ("answer", "score", "completed", "question", "Answer")),
    *("\n", "\n\n", " ", "\t", "\r\n", "x", "a b", "0.5", "high", "**", "_", "`", "> ", "- ", "1. ", ":", "\\["),
    *("##", "]]", "[[", "#", "[[ ## ", " ## ]]", "[[## answer ##]]", "[THINK]", "<think>", "</think>", "```", "~~"),
]


def answer(chosen: random.Random) -> str:
    """Sections, with something odd in some."""
    names = chosen.sample([*OUTPUTS, "completed", "question"], chosen.randint(1, 4))
    return "".join(
        chosen.choice(["", "", "\n", " ", "x"])
        + f"[[ ## {name} ## ]]"
        + chosen.choice(["\n", "\n", "\n", "", " ", ": "])
        + ("".join(chosen.choices(PIECES, k=chosen.randint(0, 4))) if chosen.random() < 0.4 else "text")
        + chosen.choice(["\n\n", "\n", "", " "])
        for name in names
    )


def test_both_ways_read_the_same() -> None:
    chosen, plain = random.Random(7), 0
    for _ in range(4000):
        text = answer(chosen)
        short = reading._plain(text, OUTPUTS)
        if short is not None:
            plain += 1
            with patch.object(reading, "_plain", return_value=None):
                assert reading.sections(text, OUTPUTS, ["question"]) == short, text
    assert plain > 100


def test_what_the_prompt_asks_for_is_read_the_short_way() -> None:
    text = "[[ ## answer ## ]]\nParis\n\n[[ ## score ## ]]\n0.5\n\n[[ ## completed ## ]]\n"
    assert reading._plain(text, OUTPUTS) == {"answer": "Paris", "score": "0.5"}
    assert reading._plain(text.removesuffix("[[ ## completed ## ]]\n"), OUTPUTS) == {"answer": "Paris", "score": "0.5"}
    for odd in (f"<think>no</think>{text}", text.replace("\n\n", " "), text + text, f"Sure.\n{text}"):
        assert reading._plain(odd, OUTPUTS) is None
