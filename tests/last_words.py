"""For children of python_port: runs end in the middle, with the key on stderr (the input `question` holds it)."""

from __future__ import annotations

import os
import sys
from typing import Any

from adapters.native import NativeAdapter


def _execute(self: NativeAdapter, backend_id: str, inputs: Any, options: Any) -> None:
    print(f"the key is {inputs['question']}", file=sys.stderr, flush=True)
    os._exit(1)


NativeAdapter.execute_program = _execute  # type: ignore[method-assign, assignment]
