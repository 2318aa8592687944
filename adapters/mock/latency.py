"""The latency of a mock run: drawn from a distribution, determined by signature, inputs and seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from adapters.mock.draws import Draws
from adapters.parameters import Parameters

MAX_MS: Final = 3_600_000

Milliseconds = Annotated[float, Field(ge=0, le=MAX_MS)]


class Uniform(Parameters):
    """Uniformly distributed from `low` to `high`."""

    distribution: Literal["uniform"]
    low: Milliseconds
    high: Milliseconds

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self

    def draw(self, draws: Draws) -> float:
        """Milliseconds."""
        return self.low + draws.fraction() * (self.high - self.low)


class Normal(Parameters):
    """Normally distributed around `mean`; negative values become 0."""

    distribution: Literal["normal"]
    mean: Milliseconds
    deviation: Milliseconds

    def draw(self, draws: Draws) -> float:
        """Milliseconds."""
        return min(max(self.mean + self.deviation * _standard(draws), 0.0), MAX_MS)


class Lognormal(Parameters):
    """Lognormally distributed, with a long tail, like the latency of LMs. `sigma` is that of the logarithm."""

    distribution: Literal["lognormal"]
    median: Milliseconds
    sigma: float = Field(ge=0, le=5)

    def draw(self, draws: Draws) -> float:
        """Milliseconds."""
        return min(self.median * math.exp(self.sigma * _standard(draws)), MAX_MS)


def _kind(value: Any) -> str | None:
    """The tag for the union below. Tags in <> are left out of error paths."""
    if isinstance(value, Mapping):
        named = value.get("distribution")
        return f"<{named}>" if isinstance(named, str) else "<>"
    return f"<{value.distribution}>" if isinstance(value, Uniform | Normal | Lognormal) else "<number>"


Latency = Annotated[
    Annotated[Milliseconds, Tag("<number>")]
    | Annotated[Uniform, Tag("<uniform>")]
    | Annotated[Normal, Tag("<normal>")]
    | Annotated[Lognormal, Tag("<lognormal>")],
    Discriminator(
        _kind,
        custom_error_type="unknown_distribution",
        custom_error_message="is not a known distribution: use uniform, normal or lognormal",
    ),
]
"""Milliseconds, or a distribution of them."""


def _standard(draws: Draws) -> float:
    """A draw of the standard normal distribution, after Box and Muller 1958, doi:10.1214/aoms/1177706645."""
    radius = math.sqrt(-2 * math.log(1 - draws.fraction()))
    return radius * math.cos(2 * math.pi * draws.fraction())
