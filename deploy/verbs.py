"""The verbs of the interface as coroutines, out of the interface: `python -m deploy.verbs FILE`.

A line for each, so that type checkers and editors see them with their arguments. Those that `dspex.aio` writes itself,
since they give back a handle or an iterator, are left to it.
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
    """Their names."""
    public = {name for name, _ in inspect.getmembers(Interface, inspect.isfunction) if not name.startswith("_")}
    return sorted(public - set(dir(Port)) - _written_in(AIO))


def document() -> str:
    """The file."""
    return HEAD + "".join(f"    {name} = in_thread(Interface.{name})\n" for name in verbs())


def _written_in(path: Path) -> set[str]:
    """The methods of its `AsyncClient`. It is read and not imported: it needs what is written here."""
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
