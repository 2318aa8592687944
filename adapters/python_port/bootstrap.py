"""Starts the server of the children in a Python: the worker's own, or that of an environment. Run as a script.

An environment has packages of its own, and nothing of the worker's: only DSPex's own packages are found in the worker's
folders, whatever else is there. What these need must be installed in the environment, and is looked for first. Until
then only Python's standard library is used, in a form that older Pythons read.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Final

OLDEST: Final = (3, 11)
"""The oldest Python that runs DSPex (pyproject.toml: requires-python)."""

MODULES: Final = "dspex.modules"


class Packages(MetaPathFinder):
    """Finds some packages in given folders, and nothing else that is there.

    Args:
        folders: the folder that contains each package.
    """

    def __init__(self, folders: Mapping[str, str]) -> None:
        self._folders = folders

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`. What is in a package is found by the package's own path."""
        folder = self._folders.get(fullname)
        return None if folder is None else PathFinder.find_spec(fullname, [folder])


def prepare(needs: Mapping[str, Any]) -> None:
    """Make DSPex importable. Ends the process with a line for what an environment lacks.

    Args:
        needs: `path`, of the worker's own Python; or for an environment `packages`, DSPex's own with the folder of
            each, `ranges`, of the versions of what they need, and `variables`, which an older DSPy reads when it is
            imported.
    """
    if "path" in needs:
        sys.path[:] = needs["path"]
        return
    if sys.version_info < OLDEST:
        have, need = (".".join(map(str, version[:2])) for version in (sys.version_info, OLDEST))
        sys.exit(f"it is Python {have}, and DSPex needs {need} or later: make it of a later Python")
    os.environ.update(needs["variables"])
    sys.meta_path.insert(0, Packages(needs["packages"]))
    from adapters.versions import out_of

    if wrong := list(out_of(needs["ranges"])):
        sys.exit("; ".join(wrong))


def found() -> dict[str, Any]:
    """What the log tells of an environment. Imports nothing of it."""
    names = sorted({point.name for point in metadata.entry_points(group=MODULES)})
    python = ".".join(map(str, sys.version_info[:3]))
    return {"python": python, "dspy": metadata.version("dspy"), "modules": names}


if __name__ == "__main__":
    given, *rest = sys.argv[1:]
    prepare(json.loads(given))
    if rest == ["check"]:
        print(json.dumps(found()))
    else:
        from adapters.python_port.forkserver import main

        control, parent, options = rest
        main(int(control), int(parent), json.loads(options))
