"""Mutation testing: changes the code in one place, runs its tests, and lists undetected changes: `make mutants`.

The places are a random sample, determined by the seed, of all modules of `store`, `workers` and `messages/dspex`. It
works in a copy of the tree.

    python -m deploy.mutants [--count 50] [--seed 1] [--only store/executions]... [--list]

It exits with 0 whatever survives: some changes have no effect, so a person must review them.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
MUTATED: Final = ("store", "workers", "messages/dspex")
LEFT_ALONE: Final = ("workers/cli/*", "messages/dspex/contract/*", "*/__main__.py")
"""Output for people, and generators of committed files: their tests are not among the quick ones."""
TESTS: Final = ("tests/unit", "tests/contract")
NO_SERVER: Final = "not integration and not acceptance"
SECONDS: Final = 240
"""The time limit for the tests of one change."""
ALWAYS: Final = {
    "store": ("tests/contract/store/test_*.py",),
    "workers": (
        "tests/unit/workers/handlers/test_handlers.py",
        "tests/unit/workers/handlers/test_refusals.py",
        "tests/unit/workers/execution/test_completion.py",
        "tests/contract/test_interface.py",
        "tests/contract/test_handles.py",
    ),
    "dspex": (
        "tests/unit/dspex/contract/test_envelope.py",
        "tests/unit/dspex/signatures/test_types.py",
        "tests/contract/test_interface.py",
    ),
}
"""Always run last, as they use all of a package."""

COMPARED: Final[dict[type[ast.cmpop], str]] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
CALCULATED: Final[dict[type[ast.operator], str]] = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*"}


class Mutant(NamedTuple):
    """A change: the replacement for the bytes between two offsets of a file."""

    path: str
    line: int
    start: int
    end: int
    text: str
    kind: str

    def applied(self, source: bytes) -> bytes:
        """The file with the change."""
        return source[: self.start] + self.text.encode() + source[self.end :]


class _Places(ast.NodeVisitor):
    """Finds what can be changed in a file."""

    def __init__(self, path: str, source: bytes) -> None:
        self.found: list[Mutant] = []
        self._path = path
        self._lines = [0]
        for line in source.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))

    def _add(self, node: ast.expr | ast.stmt | ast.keyword, text: str, kind: str) -> None:
        start = self._lines[node.lineno - 1] + node.col_offset
        end = self._lines[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        self.found.append(Mutant(self._path, node.lineno, start, end, text, kind))

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) == "TYPE_CHECKING":
            return
        self._negate(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def _negate(self, test: ast.expr) -> None:
        if not isinstance(test, ast.Constant):
            self._add(test, f"(not ({ast.unparse(test)}))", "condition negated")

    def visit_Compare(self, node: ast.Compare) -> None:
        if len(node.ops) == 1:
            left, right = ast.unparse(node.left), ast.unparse(node.comparators[0])
            self._add(node, f"({left} {COMPARED[type(node.ops[0])]} {right})", "comparison flipped")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        other = " or " if isinstance(node.op, ast.And) else " and "
        self._add(node, "(" + other.join(f"({ast.unparse(value)})" for value in node.values) + ")", "and for or")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if (other := CALCULATED.get(type(node.op))) is not None:
            self._add(node, f"({ast.unparse(node.left)} {other} {ast.unparse(node.right)})", "operator changed")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._add(node, str(not node.value), "truth flipped")
        elif isinstance(node.value, int | float):
            self._add(node, repr(node.value + 1), "number + 1")

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant) or (called := ast.unparse(node.value)).startswith("logger."):
            return  # a docstring, or a log line
        if isinstance(node.value, ast.Call) and not called.startswith("super("):
            self._add(node, "pass", "call dropped")
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            self._add(node, "return None", "nothing returned")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        for dropped in node.keywords:
            if dropped.arg is not None:
                kept = [keyword for keyword in node.keywords if keyword is not dropped]
                call = ast.Call(func=node.func, args=node.args, keywords=kept)
                self._add(node, ast.unparse(call), f"{dropped.arg}= dropped")
        self.generic_visit(node)

    def visit_Module(self, node: ast.Module) -> None:
        for statement in node.body:
            value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
            if not isinstance(value, ast.Constant):  # no right value for a limit: tests show that it holds
                self.visit(statement)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:  # the annotation is for readers
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for child in [*node.args.defaults, *filter(None, node.args.kw_defaults), *node.body]:
            self.visit(child)


def mutants_of(path: str, source: bytes) -> list[Mutant]:
    """All possible changes of a file."""
    places = _Places(path, source)
    places.visit(ast.parse(source))
    return places.found


def modules() -> Iterator[str]:
    """The files to change, relative to the root."""
    for folder in MUTATED:
        for file in sorted((ROOT / folder).rglob("*.py")):
            path = str(file.relative_to(ROOT))
            if not any(fnmatch(path, pattern) for pattern in LEFT_ALONE):
                yield path


def sample(paths: Iterable[str], count: int, seed: int) -> list[Mutant]:
    """A random sample of changes."""
    found = [mutant for path in paths for mutant in mutants_of(path, (ROOT / path).read_bytes())]
    return random.Random(seed).sample(found, min(count, len(found)))  # noqa: S311 (not a secret)


def name_of(path: str) -> str:
    """The dotted name of a module."""
    return path.removeprefix("messages/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported(source: str) -> set[str]:
    """The names that a file imports, which may be modules."""
    found = set[str]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def test_files() -> list[Path]:
    """The files of quick tests, in any folder."""
    return sorted(file for folder in TESTS for file in (ROOT / folder).rglob("test_*.py"))


def tests_of(path: str, imports: dict[str, set[str]]) -> list[str]:
    """The test files for a module: by its name, by its direct and indirect importers, and by its package."""
    name = name_of(path)
    package, _, last = name.rpartition(".")
    near = {name} if package in ("store", "workers", "workers.handlers", "dspex", "") else {name, package}
    users = {name_of(other) for other in modules() if name in imported((ROOT / other).read_text(encoding="utf-8"))}
    by_size = sorted(imports, key=lambda test: len(imports[test]))
    importing = [test for ring in (near, users) for test in by_size if imports[test] & ring]
    named = [test for test in importing if last in Path(test).stem]
    named = [*(test for test in by_size if Path(test).stem == f"test_{last}"), *named]
    always = [test for pattern in ALWAYS[name.partition(".")[0]] for test in imports if fnmatch(test, pattern)]
    return list(dict.fromkeys([*named, *importing, *sorted(always)]))


def copy_tree(target: Path) -> None:
    """Copy the files that git tracks, in their current state."""
    known = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    for name in filter(None, known.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def survives(mutant: Mutant, tree: Path, tests: Sequence[str]) -> str:
    """Run the tests on a change: `killed`, `survived`, or `timeout`, which counts as killed."""
    file = tree / mutant.path
    source, times = file.read_bytes(), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_bytes(mutant.applied(source))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", NO_SERVER, *tests]
    path = os.pathsep.join([str(tree / "messages"), str(tree)])
    environment = os.environ | {"PYTHONPATH": path}
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return "timeout"
    finally:
        file.write_bytes(source)
        os.utime(file, ns=times)  # restores the time by which Python validates compiled files
    return "survived" if done.returncode == 0 else "killed"


def shown(mutant: Mutant, tree: Path) -> str:
    """The change, for people."""
    before = (tree / mutant.path).read_bytes()
    old, new = (text.decode().splitlines() for text in (before, mutant.applied(before)))
    changed = [line for line in difflib.unified_diff(old, new, lineterm="", n=0) if line[:2] not in ("--", "++", "@@")]
    return f"{mutant.path}:{mutant.line}: {mutant.kind}\n" + "\n".join(f"    {line}" for line in changed)


def main() -> None:
    """Read the command line, and try each change of the sample."""
    parser = argparse.ArgumentParser(prog="deploy.mutants", description="Which changes does no test see?")
    parser.add_argument("--count", type=int, default=50, help="how many changes are tried")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--only", action="append", default=[], metavar="PATH", help="a file or a folder")
    parser.add_argument("--list", action="store_true", help="print the sample and its tests, and try none")
    arguments = parser.parse_args()
    paths = [path for path in modules() if not arguments.only or any(path.startswith(p) for p in arguments.only)]
    chosen = sample(paths, arguments.count, arguments.seed)
    imports = {str(file.relative_to(ROOT)): imported(file.read_text(encoding="utf-8")) for file in test_files()}
    ends = {"killed": 0, "survived": 0, "timeout": 0}
    with tempfile.TemporaryDirectory(prefix="dspex-mutants-") as directory:
        copy_tree(Path(directory))
        for number, mutant in enumerate(chosen, 1):
            tests = tests_of(mutant.path, imports)
            if arguments.list:
                print(shown(mutant, Path(directory)), *tests, sep="\n    ")
                continue
            began = time.monotonic()
            end = survives(mutant, Path(directory), tests)
            ends[end] += 1
            took = f"{number} of {len(chosen)}, {time.monotonic() - began:.0f} s"
            what = shown(mutant, Path(directory)) if end == "survived" else f"{mutant.path}:{mutant.line}"
            print(f"{end} ({took}): {what}", flush=True)
    print(f"seed {arguments.seed}, {len(chosen)} changes: {ends}")


if __name__ == "__main__":
    main()
