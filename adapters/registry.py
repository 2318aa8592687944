"""The adapters by name: built-in ones, and those of other distributions (`adapters.plugins`).

An adapter is imported at its first use, so `mock` never loads DSPy.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Any, Final

from adapters import plugins, versions
from adapters.lm import LMCatalog
from adapters.port import Adapter, AdapterError, ModuleCode, NotHere
from dspex import ErrorCode

PYTHON_PORT: Final = "python_port"
BUILT_IN: Final = {"mock": "adapters.mock", "native": "adapters.native", PYTHON_PORT: "adapters.python_port"}
"""Each module has a function `create_adapter(catalog: LMCatalog) -> Adapter`."""

_ON_DSPY: Final = frozenset({"native", PYTHON_PORT})
_METHODS = sorted(name for name in vars(Adapter) if not name.startswith("_"))


class AdapterRegistry:
    """Makes each adapter once, at its first use. Thread-safe.

    Args:
        environments: the Pythons, by name, that programs of `python_port` may name.
    """

    def __init__(self, catalog: LMCatalog | None = None, environments: Mapping[str, str] | None = None) -> None:
        self._catalog = catalog or LMCatalog()
        self._environments = environments or {}
        self._adapters: dict[str, Adapter] = {}
        self._lock = threading.Lock()

    def get(self, adapter_type: str) -> Adapter:
        """The adapter with this name. No distribution can replace a built-in one.

        Raises:
            NotHere: there is no such adapter in this process, or the DSPy that it needs is another.
            AdapterError: `permanent`: its distribution is broken.
        """
        adapter = self._adapters.get(adapter_type)
        if adapter is not None:
            return adapter
        with self._lock:
            if adapter_type not in self._adapters:
                self._adapters[adapter_type] = self._make(adapter_type)
            return self._adapters[adapter_type]

    def _make(self, adapter_type: str) -> Adapter:
        module = BUILT_IN.get(adapter_type)
        if module is None:
            return _plugged_in(adapter_type, self._catalog)
        if adapter_type in _ON_DSPY and (wrong := versions.of(versions.ON_USE)):
            raise NotHere(f"adapter_type: '{adapter_type}' cannot be used: {'; '.join(wrong)}")
        given = {"environments": self._environments} if adapter_type == PYTHON_PORT else {}
        adapter: Adapter = import_module(module).create_adapter(self._catalog, **given)
        return adapter

    def find_module(self, environment: str, name: str, allowed: Collection[str]) -> ModuleCode | None:
        """The code that a program's `module` names in an environment. See `adapters.own_modules.OwnModules`."""
        port: Any = self.get(PYTHON_PORT)
        found: ModuleCode | None = port.find_module(environment, name, allowed)
        return found

    def names(self) -> list[str]:
        """The names of all adapters that this process can use. Imports none of them."""
        return list(dict.fromkeys([*BUILT_IN, *plugins.registered(plugins.ADAPTERS), *self.made()]))

    def made(self) -> dict[str, Adapter]:
        """The adapters made so far, by name."""
        with self._lock:
            return dict(self._adapters)

    def close(self) -> None:
        """Close every adapter that was made."""
        with self._lock:
            for adapter in self._adapters.values():
                adapter.close()
            self._adapters.clear()


def _plugged_in(adapter_type: str, catalog: LMCatalog) -> Adapter:
    field = "adapter_type"
    point = plugins.find(plugins.ADAPTERS, adapter_type, asked_by=field)
    if point is None:
        names = ", ".join([*BUILT_IN, *(name for name in plugins.registered(plugins.ADAPTERS) if name not in BUILT_IN)])
        raise NotHere(f"{field}: '{adapter_type}' is not one of {names}")
    try:
        adapter: Adapter = point.load()(catalog)
    except Exception as error:  # noqa: BLE001  whatever happens in its import, there is no adapter
        raise AdapterError(ErrorCode.PERMANENT, f"{field}: '{adapter_type}' {plugins.broken(point, error)}") from None
    missing = [name for name in _METHODS if not callable(getattr(adapter, name, None))]
    if missing:
        text = f"{field}: '{adapter_type}' of {plugins.owner(point)} is no adapter: it has no {', '.join(missing)}"
        raise AdapterError(ErrorCode.PERMANENT, text)
    return adapter
