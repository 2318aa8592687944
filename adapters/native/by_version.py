"""What differs between the versions of DSPy: from 3.4 on it is DSPy's own, before that what stands in for it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import dspy
from dspy.adapters import utils

HAS_CLIENT: Final = find_spec("dspy.lm15") is not None
"""Whether DSPy has an HTTP client of its own: 3.4 has."""

if TYPE_CHECKING or HAS_CLIENT:
    BaseLM = dspy.LM

    from adapters.native.calls import execute
    from adapters.native.http_client import (
        CONNECT_SECONDS,
        LATE_IMPORTS,
        AsksOnce,
        Transport,
        calls_through,
        carries,
        not_sent,
        preload,
        reasons,
    )
else:
    from adapters.native.older import (
        CONNECT_SECONDS,
        LATE_IMPORTS,
        AsksOnce,
        BaseLM,
        Transport,
        calls_through,
        execute,
        preload,
    )

    # They are asked of LMs that `calls_through` has connected.
    carries = not_sent = reasons = None

if TYPE_CHECKING or hasattr(utils, "apply_output_field_defaults"):  # 3.3 has it
    from dspy.adapters.utils import apply_output_field_defaults
else:
    from adapters.native.older import apply_output_field_defaults

if TYPE_CHECKING or hasattr(dspy, "File"):  # 3.1 has it
    from dspy import File
else:
    from adapters.native.older import File

__all__ = [
    "CONNECT_SECONDS",
    "HAS_CLIENT",
    "LATE_IMPORTS",
    "AsksOnce",
    "BaseLM",
    "File",
    "Transport",
    "apply_output_field_defaults",
    "calls_through",
    "carries",
    "execute",
    "not_sent",
    "preload",
    "reasons",
]
