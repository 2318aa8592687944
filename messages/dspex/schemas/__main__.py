"""python -m dspex.schemas DIRECTORY: writes the contract, unless that would break existing services."""

from __future__ import annotations

import sys
from pathlib import Path

from dspex.schemas import broken, documents, read, write


def main(arguments: list[str]) -> int:
    """Returns the exit code: 1 if the models break the existing documents, 2 for wrong usage."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    directory = Path(arguments[0])
    problems = broken(read(directory), documents())
    for path, breaks in problems.items():
        for problem in breaks:
            print(f"{path}: {problem}", file=sys.stderr)
    if problems:
        print("Nothing is written. v1 only grows optional fields: give it another type, .v2", file=sys.stderr)
        return 1
    write(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
