"""Writes the verbs of the interface as coroutines: `python -m deploy.verbs FILE`.

Each verb has a line of its own, so that type checkers and editors see its arguments. It omits those that `dspex.aio`
defines itself because they return a handle or an iterator.
"""

from __future__ import annotations

import argparse
import ast
import inspect
from pathlib import Path

from dspex.client.interface import Interface
from dspex.client.port import Port

AIO = Path(__file__).parents[1] / "messages" / "dspex" / "aio.py"

HEAD = '''"""The verbs of the interface that run in a thread. Written by `make verbs`, out of `Interface`."""

from __future__ import annotations

from dspex.client.call_threads import InThreads, in_thread
from dspex.client.interface import Interface


class AsyncVerbs(InThreads):
    """See `Interface`."""

'''


def verbs() -> list[str]:
    """The names of the verbs."""
    public = {name for name, _ in inspect.getmembers(Interface, inspect.isfunction) if not name.startswith("_")}
    return sorted(public - set(dir(Port)) - _written_in(AIO))


def document() -> str:
    """The content of the file."""
    return HEAD + "".join(f"    {name} = in_thread(Interface.{name})\n" for name in verbs())


def _written_in(path: Path) -> set[str]:
    """The methods of `AsyncClient` in a file. The file is parsed, as its import needs the generated one."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == "AsyncClient":
            return {method.name for method in node.body if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)}
    raise ValueError(f"{path}: there is no AsyncClient")


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description="Write the verbs of the interface as coroutines.")
    parser.add_argument("file", type=Path)
    parser.parse_args().file.write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    main()
