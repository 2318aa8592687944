"""The names of DSPy's modules that a program may use. `adapters.native` builds them; this file imports no DSPy.

Modules of one's own are in `adapters.own_modules`.
"""

from __future__ import annotations

from typing import Final

from adapters.port import NotHere, ProgramSpec

MODULES: Final = ("Predict", "ChainOfThought", "MultiChainComparison", "BestOfN", "Refine", "ReAct")


def check_module(spec: ProgramSpec) -> None:
    """Check that a program's module is one of DSPy's, or one of one's own whose code is known.

    Raises:
        NotHere: it is neither.
    """
    if spec.code is None and spec.configuration.module not in MODULES:
        raise unknown_module(spec.configuration.module)


def unknown_module(name: str) -> NotHere:
    """The error for a module that is not known here."""
    return NotHere(f"module: '{name}' is not one of {', '.join(MODULES)}, nor offered by a distribution on this worker")
