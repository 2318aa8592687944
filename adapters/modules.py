"""The names of DSPy's modules that a program may have. `adapters.native` builds them; this knows no DSPy."""

from __future__ import annotations

from typing import Final

from adapters.port import AdapterError
from dspex import ErrorCode

MODULES: Final = ("Predict", "ChainOfThought", "MultiChainComparison", "BestOfN", "Refine", "ReAct")


def check_module(name: str) -> None:
    """Whether there is a module of this name.

    Raises:
        AdapterError: `permanent`; there is none.
    """
    if name not in MODULES:
        raise unknown_module(name)


def unknown_module(name: str) -> AdapterError:
    """What is said of a module that there is not."""
    return AdapterError(ErrorCode.PERMANENT, f"module: '{name}' is not one of {', '.join(MODULES)}")
