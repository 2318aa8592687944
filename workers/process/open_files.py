"""How many files a worker process may open. Each execution that calls an LM has at least one connection."""

from __future__ import annotations

import logging
import resource
from typing import Final

logger = logging.getLogger(__name__)

OTHERS: Final = 256
"""Open files that do not depend on the number of executions: of servers, databases, logs and libraries."""
PER_EXECUTION: Final = 4
"""Open files of one execution: connections to two LMs, and those of its tools; or the pipes of a child process."""


def allow_open_files(executions: int) -> bool:
    """Raise this process's soft limit of open files to what so many executions at once may need.

    Returns:
        Whether that many are allowed now. If not, a warning is logged: without a free descriptor, calls fail.
    """
    needed = OTHERS + PER_EXECUTION * executions
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _reaches(soft, needed):
        return True
    most = needed if _reaches(hard, needed) else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most == needed:
        return True
    logger.warning(
        "%d executions at once may need %d open files, but %d are allowed here: raise the limit (ulimit -n), or set "
        "DSPEX_THREADS to less.",
        executions,
        needed,
        hard,
    )
    return False


def _reaches(limit: int, needed: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= needed
