"""The costs of `dspex` for a service: import time and size on disk.


    python -m benchmarks.imports

Each line is the best of several new processes, in milliseconds of CPU time, so the load of the machine matters little.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

import dspex

RUNS = 10

CASES = {
    "import dspex": "import dspex",
    "a first command, encoded and decoded": """
from dspex import ExecuteProgram, decode_command, uuid7, wrap
command = ExecuteProgram(execution_id=uuid7(), program_id=uuid7(), inputs={"question": "why"})
decode_command(wrap(command, source="/benchmark").encode())
""",
    "the client": "from dspex.client import RemoteClient",
    "for comparison: pydantic, and one model": """
from pydantic import BaseModel
class Model(BaseModel):
    x: int
""",
}
NEEDED = ("pika", "pydantic", "pydantic-core", "annotated-types", "typing-inspection", "typing-extensions")


def milliseconds(code: str) -> float:
    """CPU milliseconds of running code in a new process, without the start of the interpreter."""
    timed = f"import time; began = time.process_time()\n{code}\nprint(time.process_time() - began)"
    return (
        min(
            float(subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True).stdout)
            for _ in range(RUNS)
        )
        * 1000
    )


def size(name: str) -> int:
    """The size of an installed distribution in bytes, without compiled files."""
    files = distribution(name).files or ()
    return total([Path(str(file.locate())) for file in files if file.suffix != ".pyc"])


def total(paths: Iterable[Path]) -> int:
    """The bytes of some files."""
    return sum(path.stat().st_size for path in paths if path.is_file())


def main() -> None:
    """Print both."""
    for what, code in CASES.items():
        print(f"{what:42}{milliseconds(code):6.0f} ms")
    own = total(Path(dspex.__file__).parent.rglob("*.py"))  # an editable installation lists no files
    print(f"{'dspex':42}{own / 1000:6.0f} kB")
    for name in NEEDED:
        print(f"{name:42}{size(name) / 1000:6.0f} kB")


if __name__ == "__main__":
    main()
