"""Makes virtual environments for tests: each with a DSPy of its own, and the other packages of this one."""

from __future__ import annotations

import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SITE: Final = Path(sysconfig.get_path("purelib"))

NOT_SHARED: Final = ("dspy", "dspex", "_editable", "__pycache__")
"""How the names of what is not shared begin: an environment has its own DSPy, and no DSPex."""

WORKERS: Final = ("dramatiq", "sqlalchemy", "alembic", "pika", "redis", "psycopg")
"""Packages of a worker that no environment needs."""


def make_environment(folder: Path, packages: Sequence[Path] = (), *, dspy: Path | None = SITE) -> Path:
    """Make a virtual environment without pip, and return its Python.

    Args:
        packages: folders and files that are installed in it.
        dspy: where its DSPy is: a folder with the package and its `.dist-info`. None: it has none.
    """
    venv.create(folder, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    shared = folder / "shared"
    shared.mkdir()
    for found in SITE.iterdir():
        if not found.name.startswith((*NOT_SHARED, *WORKERS)):
            (shared / found.name).symlink_to(found)
    (site / "shared.pth").write_text(f"{shared}\n", "utf-8")
    for package in (*packages, *(dspy.glob("dspy*") if dspy else ())):
        (site / package.name).symlink_to(package)
    return folder / "bin" / "python"
