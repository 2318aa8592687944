"""Programs that misbehave, for children of python_port: preloaded there, it takes orders from the input `question`.

`!print TEXT` prints, as Python, as C and as another process do; `!flood BYTES`; `!allocate BYTES`; `!keep BYTES` after
the run too; `!exit CODE`; `!abort`; `!start` a process that goes on; `!descriptors` prints what it has open; `!close`
every descriptor; `!scribble` on the socket. What comes after that is the run as usual.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapters.native import NativeAdapter
from adapters.port import Outcome, RunOptions

_as_usual = NativeAdapter.execute_program
_kept: list[bytearray] = []


def _print(text: str) -> None:
    print(text)
    print(text, file=sys.stderr)
    os.write(1, f"{text}\n".encode())
    subprocess.run(["echo", text], check=True)


def _start(_: str) -> None:
    process = subprocess.Popen(["sleep", "1000"])
    print(process.pid, file=sys.stderr, flush=True)


def _close(_: str) -> None:
    os.closerange(3, 1000)


def _scribble(_: str) -> None:
    for path in list(Path("/proc/self/fd").iterdir()):
        if path.is_socket():
            with socket.socket(fileno=os.dup(int(path.name))) as found:
                found.sendall(b"\x00\x00\x00\x07garbage")


def _descriptors(_: str) -> None:
    for path in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            print(path.name, path.readlink())


def _keep(size: str) -> None:
    _kept.append(bytearray(int(size)))


_ORDERS = {
    "!print": _print,
    "!flood": lambda size: print("x" * int(size)),
    "!allocate": lambda size: bytearray(int(size)),
    "!keep": _keep,
    "!exit": lambda code: sys.exit(int(code)),
    "!abort": lambda _: os.abort(),
    "!start": _start,
    "!close": _close,
    "!scribble": _scribble,
    "!descriptors": _descriptors,
}


def _execute(self: NativeAdapter, backend_id: str, inputs: Mapping[str, Any], options: RunOptions) -> Outcome:
    order, _, argument = str(inputs["question"]).partition(" ")
    if order in _ORDERS and any(info.backend_id == backend_id for info in self.list_programs()):
        _ORDERS[order](argument)
    return _as_usual(self, backend_id, inputs, options)


NativeAdapter.execute_program = _execute  # type: ignore[method-assign]
