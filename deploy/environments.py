"""Makes virtual environments for tests: each with a DSPy of its own, and the other packages of this one.

`python -m deploy.environments` makes those of older versions of DSPy again, in .venv/environments: `make` does.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]

OLDER: Final = ("3.0", "3.1", "3.2", "3.3")
"""The minor versions of DSPy before the worker's own. What each needs is in constraints/dspy-3.0.txt, and so on."""

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
    site = site_of(folder)
    shared = folder / "shared"
    shared.mkdir()
    for found in SITE.iterdir():
        if not found.name.startswith((*NOT_SHARED, *WORKERS)):
            (shared / found.name).symlink_to(found)
    (site / "shared.pth").write_text(f"{shared}\n", "utf-8")
    for package in (*packages, *(dspy.glob("dspy*") if dspy else ())):
        (site / package.name).symlink_to(package)
    return folder / "bin" / "python"


def site_of(folder: Path) -> Path:
    """Where the packages of an environment are."""
    return folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def with_dspy(minor: str) -> Path:
    """The Python of an environment with the last release of a minor version of DSPy. Makes it if there is none.

    Raises:
        subprocess.CalledProcessError: its packages cannot be installed.
    """
    folder = ROOT / ".venv" / "environments" / minor
    python = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(f"{folder.suffix}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if (folder / "made").exists():
            return python
        shutil.rmtree(folder, ignore_errors=True)
        make_environment(folder, dspy=None)
        pinned = ROOT / "constraints" / f"dspy-{minor}.txt"
        install = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install", "--no-deps"]
        subprocess.run([*install, "--require-hashes", "--target", site_of(folder), "-r", pinned], check=True)
        (folder / "made").touch()
    return python


def packages_of(python: Path) -> list[Path]:
    """What is installed in an environment that was made here beside what is shared: to be installed in another."""
    kept = ("shared.pth", "bin", "__pycache__")
    return [found for found in site_of(python.parents[1]).iterdir() if found.name not in kept]


def main() -> None:
    """Make each environment again."""
    for minor in OLDER:
        shutil.rmtree(ROOT / ".venv" / "environments" / minor, ignore_errors=True)
    with ThreadPoolExecutor() as threads:
        list(threads.map(with_dspy, OLDER))


if __name__ == "__main__":
    main()
