"""The python_port adapter: DSPy in child processes, which can be stopped, and which can die alone.

The side of the worker is `adapter`, `pool`, `children` and `server`: it never imports DSPy. The other side is
`forkserver`, which has DSPy loaded and forks, and `child`, which runs programs, one at a time. Between them are the
frames of `frames`.
"""

from adapters.lm import LMCatalog
from adapters.python_port.adapter import PythonPortAdapter
from adapters.python_port.limits import Limits

__all__ = ["Limits", "PythonPortAdapter", "create_adapter"]


def create_adapter(catalog: LMCatalog) -> PythonPortAdapter:
    """The adapter, as the registry asks for it."""
    return PythonPortAdapter(catalog)
