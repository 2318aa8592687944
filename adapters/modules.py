"""The names of the DSPy modules that a program may use. `adapters.native` builds them; this file imports no DSPy."""

from __future__ import annotations

from typing import Final

from adapters.port import AdapterError
from dspex import ErrorCode

MODULES: Final = ("Predict", "ChainOfThought", "MultiChainComparison", "BestOfN", "Refine", "ReAct")


def check_module(name: str) -> None:
    """Check that a module has this name.

    Raises:
        AdapterError: `permanent`: no module has it.
    """
    if name not in MODULES:
        raise unknown_module(name)


def unknown_module(name: str) -> AdapterError:
    """The error for a module that does not exist."""
    return AdapterError(ErrorCode.PERMANENT, f"module: '{name}' is not one of {', '.join(MODULES)}")
