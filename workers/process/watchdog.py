"""No thread dies unnoticed: a process that has lost one ends, and the supervisor starts another in its place.

Dramatiq never replaces a worker thread that has died; a process whose consumer or writer is gone looks alive, and does
nothing.
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
    """The names of the threads that have ended, of those that were started."""
    return [thread.name for thread in threads if thread.ident is not None and not thread.is_alive()]


def end_process(drain: Callable[[], None], seconds: float) -> NoReturn:
    """End this process with `EXIT_CODE`, once it is drained, or cannot be in this time.

    It does not wait for threads that hang, as the interpreter would at its end.
    """
    draining = threading.Thread(target=drain, name="drain", daemon=True)
    draining.start()
    draining.join(seconds)
    if draining.is_alive():
        logger.error("It could not be drained in %.0f s: leases end what runs.", seconds)
    logging.shutdown()
    os._exit(EXIT_CODE)
