"""Reads py-spy's samples: for each kind of thread, the folder, the function that ran, and its callers."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

OURS = ("workers", "store", "adapters", "messages/dspex")
LIBRARY = "Python's library"
OTHERS = "others"
KINDS = {
    "Writer._run": "writer",
    "ConsumerThread.run": "consumers",
    "WorkerThread.run": "actors",
    "Link._run": "publisher",
}
"""Kinds of threads of a worker, by the function that each runs."""
_FRAME = re.compile(r"(?P<function>.*) \((?P<file>.*?)(?::\d+)?\)$")
_LIBRARY_FOLDERS = (
    "<",
    "asyncio/",
    "collections/",
    "concurrent/",
    "importlib/",
    "json/",
    "logging/",
    "multiprocessing/",
)


@dataclass
class Stacks:
    """Samples by kind of thread; `callers` are functions of ours, with what they called."""

    samples: Counter[str] = field(default_factory=Counter)
    folders: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    functions: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    callers: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))


def folder_of(file: str) -> str:
    """The owner of a file, by the name that py-spy shortens: a folder of ours, a package, or Python's library."""
    for ours in OURS:
        if file.startswith(f"{ours}/"):
            return ours
    if file.startswith("dspex/"):
        return "messages/dspex"
    package, separator, _ = file.partition("/")
    return LIBRARY if not separator or file.startswith(_LIBRARY_FOLDERS) else package


def kind_of(functions: Iterable[str]) -> str:
    """The kind of a thread, by the functions on its stack."""
    names = set(functions)
    return next((kind for function, kind in KINDS.items() if function in names), OTHERS)


def read_stacks(lines: Iterable[str]) -> Stacks:
    """Read py-spy's raw format: `frame;frame;frame count`, the innermost last."""
    stacks = Stacks()
    for line in lines:
        text, _, count = line.strip().rpartition(" ")
        found = [(match["function"], match["file"]) for part in text.split(";") if (match := _FRAME.match(part))]
        if not found:
            continue
        samples, kind = int(count), kind_of(function for function, _ in found)
        function, file = found[-1]
        stacks.samples[kind] += samples
        stacks.folders[kind][folder_of(file)] += samples
        stacks.functions[kind][f"{function} ({file})"] += samples
        for name in {f"{function} ({file})" for function, file in found if folder_of(file) in OURS}:
            stacks.callers[kind][name] += samples
    return stacks
