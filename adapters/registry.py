"""The adapters by name. An adapter is imported when it is first asked for: `mock` never loads DSPy."""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Final

from adapters.lm import LMCatalog
from adapters.port import Adapter, AdapterError
from dspex import ErrorCode

BUILT_IN: Final = {"mock": "adapters.mock", "native": "adapters.native"}
"""Each module has a function `create_adapter(catalog: LMCatalog) -> Adapter`."""


class AdapterRegistry:
    """Makes each adapter once, when it is first asked for; shared by the threads of a process."""

    def __init__(self, catalog: LMCatalog | None = None) -> None:
        self._catalog = catalog or LMCatalog()
        self._adapters: dict[str, Adapter] = {}
        self._lock = threading.Lock()

    def get(self, adapter_type: str) -> Adapter:
        """The adapter of this name.

        Raises:
            AdapterError: `permanent`, there is none.
        """
        adapter = self._adapters.get(adapter_type)
        if adapter is not None:
            return adapter
        with self._lock:
            if adapter_type not in self._adapters:
                module = BUILT_IN.get(adapter_type)
                if module is None:
                    raise AdapterError(
                        ErrorCode.PERMANENT, f"adapter_type: '{adapter_type}' is not one of {', '.join(BUILT_IN)}"
                    )
                self._adapters[adapter_type] = import_module(module).create_adapter(self._catalog)
            return self._adapters[adapter_type]

    def close(self) -> None:
        """Close every adapter that was made."""
        with self._lock:
            for adapter in self._adapters.values():
                adapter.close()
            self._adapters.clear()
