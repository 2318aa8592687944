"""Write constraints/runtime.txt, dev.txt, bench.txt and docs.txt from both pyproject.toml files: `make constraints`.

And for each minor version of DSPy that programs may run on in an environment, constraints/dspy-3.0.txt and so on: only
DSPy itself, and what is not in dev.txt or does not fit there.

Every third-party package is pinned to one version and to the sha256 of each of its files, so an install
with `pip install --require-hashes -r constraints/dev.txt` gets the same bytes everywhere. The distributions
of this repository are left out: they are installed from their folders with `--no-deps`. Nothing about the
machine that compiled them (indexes, local folders, paths) is written into the files.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OWN_DISTRIBUTIONS = frozenset({"dspex", "dspex-server"})
BUILD_REQUIREMENTS = ("hatchling", "editables", "pip")
"""What `pip install --no-build-isolation -e` of the two distributions needs to find installed."""


OLDER_DSPY = {
    "3.0": ("asyncer", "backoff", "gepa", "joblib", "magicattr", "xxhash"),
    "3.1": ("asyncer", "gepa", "xxhash"),
    "3.2": ("asyncer", "gepa", "typeguard", "xxhash"),
    "3.3": (),
}
"""What a DSPy before the worker's needs beside the packages of dev.txt. 3.0 lists pillow, too, which no test needs."""


def requirement_name(requirement: str) -> str:
    """The normalised name of what a requirement asks for: `psycopg[binary]>=3` gives `psycopg`."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    if match is None:
        raise ValueError(f"not a requirement: {requirement!r}")
    return re.sub(r"[-_.]+", "-", match.group()).lower()


def load(pyproject: Path) -> dict[str, Any]:
    """The parsed content of a pyproject.toml."""
    return tomllib.loads(pyproject.read_text(encoding="utf-8"))


def compile_requirements(requirements: list[str], output: Path, constraint: Path | None, upgrade: bool) -> None:
    """Resolve `requirements` into `output`; versions stay within those of `constraint`.

    Raises subprocess.CalledProcessError when pip-compile cannot resolve them.
    """
    wanted = [line for line in requirements if requirement_name(line) not in OWN_DISTRIBUTIONS]
    command = [sys.executable, "-m", "piptools", "compile", "--quiet", "--generate-hashes", "--allow-unsafe"]
    command += ["--strip-extras", "--no-emit-options", "--no-header", "--newline=lf"]
    command += ["--upgrade"] if upgrade else []
    command += [] if constraint is None else [f"--constraint={constraint.relative_to(ROOT)}"]
    command += [f"--output-file={output.relative_to(ROOT)}", "-"]
    subprocess.run(command, input="\n".join(wanted), text=True, cwd=ROOT, check=True)
    output.write_text(tidy(output.read_text(encoding="utf-8")), encoding="utf-8")


def tidy(text: str) -> str:
    """The compiled text with our header and no trace of how the requirements were handed over."""
    text = re.sub(r"^# The following packages are considered to be unsafe.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"-r -(?= |$)", "pyproject.toml", text, flags=re.MULTILINE)
    pins = sum(1 for line in text.splitlines() if "==" in line and not line.startswith((" ", "#")))
    header = f"# {pins} packages, pinned by version and hash. Written by `make constraints`; do not edit."
    return f"{header}\n\n{text.strip()}\n"


def only(text: str, names: tuple[str, ...]) -> str:
    """The pins of these packages in a compiled file, without the notes on who needs them."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    kept: list[str] = []
    wanted = False
    for line in lines:
        if not line.startswith(" "):
            wanted = bool(line) and requirement_name(line) in names
        if wanted:
            kept.append(line)
    return tidy("\n".join(kept))


def main() -> None:
    """Compile all files; `--upgrade` moves every pin to the newest version allowed."""
    upgrade = "--upgrade" in sys.argv[1:]
    server, messages = load(ROOT / "pyproject.toml"), load(ROOT / "messages" / "pyproject.toml")
    runtime = [*server["project"]["dependencies"], *messages["project"]["dependencies"], *BUILD_REQUIREMENTS]
    dev = [*runtime, *server["dependency-groups"]["dev"]]
    bench = [*runtime, *server["dependency-groups"]["bench"]]
    docs = [*runtime, *server["dependency-groups"]["docs"]]
    folder = ROOT / "constraints"
    compile_requirements(runtime, folder / "runtime.txt", None, upgrade)
    compile_requirements(dev, folder / "dev.txt", folder / "runtime.txt", upgrade)
    compile_requirements(bench, folder / "bench.txt", folder / "runtime.txt", upgrade)
    compile_requirements(docs, folder / "docs.txt", folder / "dev.txt", upgrade)  # beside them in one environment
    for minor, beside in OLDER_DSPY.items():
        output = folder / f"dspy-{minor}.txt"
        compile_requirements([f"dspy=={minor}.*"], output, None, upgrade)
        output.write_text(only(output.read_text(encoding="utf-8"), ("dspy", *beside)), encoding="utf-8")


if __name__ == "__main__":
    main()
