"""The pages name files and functions that are there, and DESIGN.md names every file of ours."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("messages/dspex", "adapters", "store", "workers", "migrations")
PAGES = (
    *(ROOT / name for name in ("README.md", "DESIGN.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
)

NAMED = re.compile(
    r"\b((?:messages|dspex|adapters|store|workers|migrations|tests|benchmarks)/[\w/]+\.py)(?::([A-Za-z_]\w*(?:\.\w+)*))?"
)
ROW = re.compile(r"^\| (\*\*)?`([\w./]+)`(?:\*\*)? \|", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def path_of(named: str) -> Path:
    """A file as the pages name it: `dspex/…` is in `messages/`."""
    return ROOT / (f"messages/{named}" if named.startswith("dspex/") else named)


@cache
def names_in(path: Path) -> frozenset[str]:
    """Functions, classes and constants of a file, and `Class.member` of its classes."""
    found: set[str] = set()

    def collect(body: list[ast.stmt], prefix: str = "") -> None:
        for node in body:
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    found.add(prefix + node.name)
                case ast.ClassDef():
                    found.add(prefix + node.name)
                    collect(node.body, f"{prefix}{node.name}.")
                case ast.Assign():
                    found.update(prefix + target.id for target in node.targets if isinstance(target, ast.Name))
                case ast.AnnAssign(target=ast.Name(id=name)):
                    found.add(prefix + name)

    collect(ast.parse(path.read_text(encoding="utf-8")).body)
    return frozenset(found)


def in_the_table() -> list[str]:
    """The files of the table: each row after the folder that it is in, whose `__init__.py` its own row stands for."""
    text = (ROOT / "DESIGN.md").read_text(encoding="utf-8").partition("## Every file")[2]
    found, folder = list[str](), ""
    for bold, name in ROW.findall(text):
        if bold:
            folder = name
        found.append(f"{folder}__init__.py" if bold else folder + name)
    return found


def test_every_file_is_in_the_table_once() -> None:
    there = {str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    found = Counter(in_the_table())
    folders = {f"{path.rpartition('/')[0]}/__init__.py" for path in there}  # those without a file of their own, too
    assert there - set(found) == set(), "files that DESIGN.md does not name"
    assert set(found) - there - folders == set(), "DESIGN.md names files that are not there"
    assert [name for name, count in found.items() if count > 1] == [], "files that DESIGN.md names twice"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page: Path) -> None:
    wrong = []
    for named, name in NAMED.findall(page.read_text(encoding="utf-8")):
        path = path_of(named)
        if not path.is_file():
            wrong.append(f"{named}: there is no such file")
        elif name and name not in names_in(path):
            wrong.append(f"{named}: there is no {name} in it")
    assert wrong == []


def test_every_decision_is_in_the_index() -> None:
    index = (ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")
    linked = [link for link in LINK.findall(index) if link[:4].isdigit()]
    assert linked == sorted(page.name for page in PAGES if page.name[:4].isdigit())
