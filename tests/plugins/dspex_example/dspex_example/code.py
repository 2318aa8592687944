"""A reward and two tools: programs name them, and never bring code of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CAPITALS = {"france": "Paris", "italy": "Rome"}


def brevity(inputs: Mapping[str, Any], prediction: Any) -> float:
    """1 for an answer of one word, less for longer ones."""
    return 1 / len(prediction["answer"].split())


def broken_reward(inputs: Mapping[str, Any], prediction: Any) -> float:
    """Fails, and quotes what it must not."""
    raise ValueError(f"cannot score {prediction['answer']}")


def capital_of(country: str) -> str:
    """The capital of a country."""
    return CAPITALS[country.lower()]


async def count_letters(word: str, letter: str) -> int:
    """How often a letter is in a word."""
    return word.count(letter)
