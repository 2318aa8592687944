"""Linux features for which Python has no function."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PAGE: Final = resource.getpagesize()


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends (prctl(2), PR_SET_PDEATHSIG).

    Not inherited by children, and lost when the process changes its user: call it again after that.

    Args:
        parent: the pid of the process that started this one. If it is gone already, this process ends at once.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def limit_memory(allowance: int) -> None:
    """Let this process allocate at most so many more bytes (RLIMIT_DATA), and dump no core, which would contain keys.

    Not RLIMIT_AS, which also counts the address space that the C library reserves for each thread and never uses.
    """
    limit = _status("VmData") * 1024 + allowance
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def resident_bytes() -> int:
    """The resident memory of this process, including shared memory (/proc/self/statm, proc(5))."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE


def _status(name: str) -> int:
    """A number of /proc/self/status; sizes are in KiB."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        key, value = line.split(":", 1)
        if key == name:
            return int(value.split()[0])
    raise OSError(f"/proc/self/status has no {name}")
