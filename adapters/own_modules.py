"""The modules of one's own that programs may name, and where their code is. Imports none of them.

| a program names     | it may, if                                                                              |
|---------------------|-----------------------------------------------------------------------------------------|
| `rag`               | an installed distribution has an entry point of this name in the group `dspex.modules`  |
| `acme.programs:RAG` | the operator allows it (`DSPEX_MODULES`): by this name, or by `acme.programs:*`         |

What is found has an identity: the distribution, and a digest of the source files of the package that the code is in.
It is a part of the program's backend id, so a worker with other code never takes one program for the other. The code
is imported by an adapter, when it builds the program (`adapters.native.modules.own`).
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, packages_distributions, version
from pathlib import Path
from typing import Final, Protocol

from adapters import plugins
from adapters.modules import MODULES
from adapters.port import AdapterError, ModuleCode, NotHere
from dspex import ErrorCode

MAX_FILES: Final = 5_000
MAX_BYTES: Final = 64 * 1024 * 1024
"""The largest package whose files are read for a digest."""

_FIELD: Final = "module"


class Elsewhere(Protocol):
    """Finds the code of modules in named environments."""

    def __call__(self, environment: str, name: str, allowed: Collection[str], /) -> ModuleCode | None:
        """See `OwnModules.find`, with what is allowed there."""
        ...


@dataclass(frozen=True)
class OwnModules:
    """Which modules of one's own programs may name in this process.

    Args:
        allowed: `package.module:Class`, or `package.module:*` for all that this module defines.
        elsewhere: looks in an environment. The code is the environment's own; what may be named is the operator's word.
    """

    allowed: tuple[str, ...] = ()
    elsewhere: Elsewhere | None = None

    def find(self, name: str, environment: str | None = None) -> ModuleCode | None:
        """The code that a program's `module` names; None for a name that DSPex or the program's adapter knows.

        Args:
            environment: where the program runs, if not in the worker's own Python.

        Raises:
            NotHere: this process has no such module, or may not import it. Another may.
            AdapterError: `permanent`: several distributions offer the name, or the package is too large to be told
                from others.
        """
        if name in MODULES:
            return None
        if ":" in name:
            self._check_allowed(name)
        if environment is not None and self.elsewhere is not None:
            return self.elsewhere(environment, name, (name,) if ":" in name else ())
        if ":" not in name:
            point = plugins.find(plugins.MODULES, name, asked_by=_FIELD)
            return None if point is None else _code(_reference(point), _distribution(point))
        return _code(name)

    def _check_allowed(self, name: str) -> None:
        if name not in self.allowed and f"{name.partition(':')[0]}:*" not in self.allowed:
            known = ", ".join(self.names()) or "none"
            advice = "an operator can allow it by DSPEX_MODULES on the workers that have it"
            raise NotHere(f"{_FIELD}: '{name}' may not be imported by this worker (it may import: {known}): {advice}")

    def names(self) -> list[str]:
        """What programs may name here, whether or not it can be imported."""
        return [*plugins.registered(plugins.MODULES), *self.allowed]

    def offered(self) -> list[Offered]:
        """What programs may name here, each with its code. Reads the source files."""
        return [self._offered(name) for name in self.names()]

    def _offered(self, name: str) -> Offered:
        try:
            return Offered(name, self.find(name))
        except AdapterError as error:
            return Offered(name, None, error.message)


@dataclass(frozen=True)
class Offered:
    """What programs may name in this process: its code, or why it cannot be run."""

    name: str
    code: ModuleCode | None
    problem: str = ""

    def __str__(self) -> str:
        if self.code is None:
            return f"{self.name} (cannot be run: {self.problem})"
        return f"{self.name} ({self.code.distribution or self.code.reference}, {self.code.digest[:12]})"


def is_current(code: ModuleCode) -> bool:
    """Whether the source files are still those of `code`. Reads them again."""
    found = _located(code.reference.partition(":")[0])
    return found is not None and _read(found.root) == code.digest


def package_of(module: str) -> str:
    """The name of the package, or of the single file, whose source files tell the code of a module from others."""
    found = _located(module)
    return module if found is None else found.name


@dataclass(frozen=True)
class _Located:
    """Where the code of a module is: a package's folder, or a file that is in none."""

    name: str
    root: Path


def _code(reference: str, distribution: str | None = None) -> ModuleCode:
    module = reference.partition(":")[0]
    found = _located(module)
    if found is None:
        advice = "install the distribution that has it on the workers"
        raise NotHere(f"{_FIELD}: there is no module '{module}' on this worker: {advice}")
    if distribution is None:
        distribution = _owner(found.name)
    return ModuleCode(reference=reference, distribution=distribution, digest=_digest(found.root))


def _reference(point: EntryPoint) -> str:
    return f"{point.module}:{point.attr}"


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else ""


@cache
def _owner(package: str) -> str:
    """The distributions of a package with their versions; none for files that were only put on the path."""
    owners = sorted(set(packages_distributions().get(package.partition(".")[0], ())))
    return ", ".join(f"{name} {version(name)}" for name in owners)


def _located(module: str) -> _Located | None:
    """The outermost package that has an `__init__.py`, or the file. Nothing is imported: only finders are asked."""
    importlib.invalidate_caches()  # it may have been installed while this process runs
    name, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    root = _root(name, spec)
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
        root = root or _root(name, spec)
    return None if spec is None else root


def _root(name: str, spec: ModuleSpec | None) -> _Located | None:
    if spec is None or not spec.has_location or spec.origin is None:
        return None  # nothing, or a namespace: it has no code of its own
    origin = Path(spec.origin)
    return _Located(name, origin if spec.submodule_search_locations is None else origin.parent)


_digests: dict[Path, str] = {}
_reading = threading.Lock()


def _digest(root: Path) -> str:
    """The digest of the source files, as this process read them first: later ones it does not import any more."""
    with _reading:
        if root not in _digests:
            try:
                _digests[root] = _read(root)
            except OSError as error:
                text = f"{_FIELD}: the source files of '{root.name}' cannot be read: {error.strerror}"
                raise NotHere(text) from None
        return _digests[root]


def _read(root: Path) -> str:
    total, content = 0, sha256()
    for number, (name, path) in enumerate(sorted(_sources(root))):
        data = path.read_bytes()
        total += len(data)
        if number >= MAX_FILES or total > MAX_BYTES:
            text = f"{_FIELD}: the package '{root.name}' has more than {MAX_FILES} source files or {MAX_BYTES} bytes"
            raise AdapterError(ErrorCode.PERMANENT, f"{text}: put the module into a smaller one")
        content.update(f"{name}\0{len(data)}\0".encode())
        content.update(data)
    return content.hexdigest()


def _sources(root: Path) -> Iterator[tuple[str, Path]]:
    if root.is_file():
        yield root.name, root
        return
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name.isidentifier() and name != "__pycache__"]
        for name in files:
            if name.endswith(".py"):
                path = Path(folder, name)
                yield path.relative_to(root).as_posix(), path
