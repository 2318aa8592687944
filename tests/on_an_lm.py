"""The adapters that call an LM, for tests of what both do with its answers."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from adapters.lm import LMCatalog
from adapters.native import NativeAdapter
from adapters.port import Adapter
from adapters.python_port import PythonPortAdapter
from adapters.python_port.server import Server

ON_AN_LM = ("native", "python_port")


@contextmanager
def adapter_of(kind: str, catalog: LMCatalog, children: Callable[[], Server]) -> Generator[Adapter]:
    """One of `ON_AN_LM`, until the block ends; `python_port` with these children."""
    adapter: Adapter = NativeAdapter(catalog) if kind == "native" else PythonPortAdapter(catalog, server=children())
    try:
        yield adapter
    finally:
        adapter.close()
