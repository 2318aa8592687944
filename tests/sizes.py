"""How much a test does: little in a usual run, and its full size with DSPEX_TEST_TORTURE=1 (`make torture`)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

TORTURE = bool(os.environ.get("DSPEX_TEST_TORTURE"))


def sized(usual: int, torture: int) -> int:
    """Chooses a size: the first in a usual run, the second under torture."""
    return torture if TORTURE else usual


def set_examples() -> None:
    """How many examples a property is tried on that says nothing else: 40, and under torture Hypothesis's own 100.

    A usual run draws the same ones each time, as a change that touches no property must not fail by one; a run under
    torture draws others. How long the machine took to make the examples is no matter of the property: a busy one is
    slow.
    """
    settings.register_profile(
        "dspex",
        max_examples=sized(40, 100),
        derandomize=not TORTURE,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("dspex")
