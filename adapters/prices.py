"""What an LM's tokens cost, as an operator says it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

from pydantic import ConfigDict

from dspex import LMCall

TOKENS: Final = 1_000_000


@dataclass(frozen=True)
class Prices:
    """Prices in US dollars for a million tokens.

    Attributes:
        input, output: of tokens that are sent and answered. Reasoning is output.
        cached: of the part of the input that the provider had in its cache; by default as `input`.
    """

    input: float
    output: float
    cached: float | None = None

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached"):
            price = getattr(self, name)
            if price is not None and not (math.isfinite(price) and price >= 0):
                raise ValueError(f"{name}: is a price of a million tokens in US dollars, 0 or more")

    def cost(self, call: LMCall) -> float | None:
        """What a call cost; None if its tokens are not known."""
        if call.input_tokens is None or call.output_tokens is None:
            return None
        cached = min(call.cached_tokens or 0, call.input_tokens)
        of_cached = self.input if self.cached is None else self.cached
        fresh = (call.input_tokens - cached) * self.input
        return (fresh + cached * of_cached + call.output_tokens * self.output) / TOKENS
