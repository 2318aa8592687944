"""The servers of children: one for the worker's own Python, and one for each environment that programs name."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from adapters.python_port.children import Child
from adapters.python_port.environments import find
from adapters.python_port.limits import Limits
from adapters.python_port.server import Server


class Servers:
    """Makes each server at its first use. Thread-safe.

    Args:
        pythons: the Python of each environment, by its name.
        own: the server of the worker's own Python, if adapters share one. By default this has its own, and closes it.
    """

    def __init__(self, limits: Limits, pythons: Mapping[str, str], own: Server | None = None) -> None:
        self._limits = limits
        self._pythons = pythons
        self._shared = own
        self._made: dict[str | None, Server] = {}
        self._lock = threading.Lock()

    def of(self, environment: str | None) -> Server:
        """The server of an environment; None: of the worker's own Python.

        Raises:
            NotHere: this worker has no such environment.
        """
        if environment is None and self._shared is not None:
            return self._shared
        with self._lock:
            if environment not in self._made:
                found = None if environment is None else find(self._pythons, environment)
                self._made[environment] = Server(self._limits, found)
            return self._made[environment]

    def fork(self, environment: str | None) -> Child:
        """Start a child. Raises as `Server.fork`, and as `of`."""
        child = self.of(environment).fork()
        child.environment = environment
        return child

    def close(self) -> None:
        """End every server but a shared one, and all of their children."""
        with self._lock:
            made = list(self._made.values())
        for server in made:
            server.close()
