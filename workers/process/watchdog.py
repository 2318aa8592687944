"""Detects dead threads: a process that has lost one exits, and the supervisor replaces it.

Dramatiq never replaces a dead worker thread, and a process without its consumer or writer looks alive but does nothing.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from typing import NoReturn

logger = logging.getLogger(__name__)

EXIT_CODE = os.EX_SOFTWARE
"""70: the process has lost a thread."""


def dead(threads: Iterable[threading.Thread]) -> list[str]:
    """The names of the started threads that have ended."""
    return [thread.name for thread in threads if thread.ident is not None and not thread.is_alive()]


def end_process(drain: Callable[[], None], seconds: float) -> NoReturn:
    """End this process with `EXIT_CODE`, after it has drained or the time is over.

    Unlike a normal exit of the interpreter, it does not wait for threads that hang.
    """
    draining = threading.Thread(target=drain, name="drain", daemon=True)
    draining.start()
    draining.join(seconds)
    if draining.is_alive():
        logger.error("The process did not drain in %.0f s: its leases will run out.", seconds)
    logging.shutdown()
    os._exit(EXIT_CODE)
