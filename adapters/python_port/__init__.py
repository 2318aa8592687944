"""The python_port adapter: DSPy in child processes, which can be killed, and can crash without the worker.

In the worker: `adapter`, `pool`, `children` and `servers`, which never import DSPy. In other processes: `forkserver`,
which has DSPy loaded and forks, and `child`, which runs programs, one at a time. They exchange the frames of `frames`,
and run on the worker's own Python, or on that of an environment (`environments`).
"""

from collections.abc import Mapping

from adapters.lm import LMCatalog
from adapters.python_port.adapter import PythonPortAdapter
from adapters.python_port.limits import Limits

__all__ = ["Limits", "PythonPortAdapter", "create_adapter"]


def create_adapter(catalog: LMCatalog, environments: Mapping[str, str] | None = None) -> PythonPortAdapter:
    """Make the adapter, for the registry."""
    return PythonPortAdapter(catalog, environments=environments)
