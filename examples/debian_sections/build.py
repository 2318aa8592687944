"""Remake ``packages.jsonl`` from the Debian 12 "bookworm" main package index.

The script asks apt for the index of the bookworm release (component main,
architecture amd64) together with the English long descriptions, into a
temporary folder: it changes nothing on the system and needs no root rights.
It runs on a machine whose apt sources hold Debian 12.

The choice and the order of the rows depend only on the index and on hashes of
the package names, so the same index always gives the same file.

Usage::

    python examples/debian_sections/build.py [--out FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

CODENAME = "bookworm"
COMPONENT = "main"
ARCHITECTURE = "amd64"
APT_HELPER = "/usr/lib/apt/apt-helper"

SECTIONS = (
    "admin",
    "database",
    "devel",
    "editors",
    "games",
    "graphics",
    "mail",
    "net",
    "science",
    "sound",
    "text",
    "web",
)
ROWS_PER_SECTION = 30
MIN_CHARS = 140
MAX_CHARS = 600

# Packages that are not programs in their own right: libraries, modules, data,
# documentation, debug symbols, metapackages and the like.
SKIP_PREFIX = re.compile(
    r"^(lib|python3?-|ruby-|golang-|node-|php-|r-|lua-|perl-|haskell-|elpa-|xul-ext-|"
    r"webext-|gir1|fonts-|task-|education-|science-|med-|debian-|junior-|games-|gis-)"
)
SKIP_SUFFIX = re.compile(
    r"-(dev|doc|docs|dbg|dbgsym|data|common|base|core|bin|all|full|examples?|source|src|"
    r"headers|i18n|l10n|locales?|lang|scripts|plugins?|modules?|extras?|tests?|utils?|tools|"
    r"dkms|manual|schema|demos?|theme|themes|music|maps|levels|graphics|sounds)$"
)
SKIP_TEXT = re.compile(
    r"\b(transitional|dummy|metapackages?|meta-packages?|virtual package|empty package|"
    r"shared librar(y|ies)|runtime librar(y|ies)|development files|header files|"
    r"debug(ging)? symbols|documentation for|data files for|language files|Node\.js is an event-based)\b",
    re.IGNORECASE,
)
SKIP_SHORT = re.compile(r"\b(librar(y|ies)|modules?|bindings?|plug-?ins?|add-?ons?)\b", re.IGNORECASE)
SKIP_ROLE = re.compile(
    r"\brole::(dummy|metapackage|shared-lib|devel-lib|debug-symbols|documentation|"
    r"app-data|data|source|examples)\b"
)
# Addresses do not help to tell the section and do not belong in a data set.
ADDRESS = re.compile(r"://|@|\bwww\.|\b[\w-]+\.(org|com|net|io|de|edu|gov|info|fr|uk)\b", re.IGNORECASE)
# An apostrophe or a letter that was lost in a change of encoding.
DAMAGED = re.compile("[A-Za-z]\\?[a-z]|\N{REPLACEMENT CHARACTER}")
LIST_ITEM = re.compile(r"^(\s|[*+\u2022\u00b7\u2013-]\s|-[a-z]|o\s|\(?\d+[.)]\s)")
SENTENCE_GAP = re.compile(r"(?<=[.!?])([\"')\]]*)\s+(?=[\"'(\[]?[A-Z0-9])")
SENTENCE_END = re.compile(r"[.!?][\"')\]]*$")
ABBREVIATION = re.compile(
    r"(\b(e\.g|i\.e|etc|vs|cf|resp|approx|incl|Dr|Mr|Mrs|Ms|St|Inc|Ltd|Co|No|Vol|ca)"
    r"|\b[A-Z]|\.\.)\.$"
)


class Row(NamedTuple):
    """One row of the data set, with the source package it was built from."""

    package: str
    source: str
    section: str
    description: str


def run(command: list[str]) -> str:
    """Run a command and return what it printed; stop with its message if it fails."""
    try:
        done = subprocess.run(command, check=False, capture_output=True)
    except FileNotFoundError:
        raise SystemExit(f"{command[0]} not found: this script needs apt") from None
    if done.returncode != 0:
        message = done.stderr.decode("utf-8", "replace").strip()
        raise SystemExit(f"{command[0]} failed: {message}")
    return done.stdout.decode("utf-8")


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """Read the paragraphs of a Debian control file; continuation lines keep their newline."""
    fields: dict[str, str] = {}
    key = ""
    for line in text.split("\n"):
        if not line.strip():
            if fields:
                yield fields
            fields, key = {}, ""
        elif line[0] in " \t":
            if key:
                fields[key] += "\n" + line[1:]
        else:
            key, _, value = line.partition(":")
            fields[key] = value.strip()
    if fields:
        yield fields


def read_index(folder: Path) -> tuple[str, str]:
    """Fetch the package index and the English descriptions into ``folder`` and read both."""
    (folder / "lists" / "partial").mkdir(parents=True)
    (folder / "cache" / "archives" / "partial").mkdir(parents=True)
    apt = [
        "apt-get",
        f"-oDir::State::lists={folder / 'lists'}",
        f"-oDir::Cache={folder / 'cache'}",
        "-oAcquire::Languages=en",
        f"-oAPT::Architecture={ARCHITECTURE}",
        f"-oAPT::Architectures={ARCHITECTURE}",
        "-oAPT::Sandbox::User=",
    ]
    where = ["Label: Debian", f"Codename: {CODENAME}", f"Component: {COMPONENT}"]
    run([*apt, "-qq", "update"])
    texts: list[str] = []
    for creator in ("Packages", "Translations"):
        found = run([*apt, "indextargets", "--format", "$(FILENAME)", f"Created-By: {creator}", *where])
        names = sorted({name for name in found.splitlines() if name})
        if len(names) != 1:
            raise SystemExit(
                f"expected one {creator} index of {CODENAME}/{COMPONENT} in apt's sources, found {len(names)}"
            )
        texts.append(run([APT_HELPER, "cat-file", names[0]]))
    return texts[0], texts[1]


def prose(long_text: str) -> list[str]:
    """Return the paragraphs of a long description that stand before its first list."""
    paragraphs: list[str] = []
    lines: list[str] = []
    for line in long_text.split("\n"):
        if LIST_ITEM.match(line):
            break
        if line.strip() == ".":
            paragraphs.append(" ".join(lines))
            lines = []
        else:
            lines.append(line)
    paragraphs.append(" ".join(lines))
    return [text for text in (" ".join(item.split()) for item in paragraphs) if text]


def sentences(paragraph: str) -> list[str]:
    """Split a paragraph into sentences; a last one without an end mark is left out."""
    found: list[str] = []
    start = 0
    for gap in SENTENCE_GAP.finditer(paragraph):
        sentence = paragraph[start : gap.end()].strip()
        if not ABBREVIATION.search(sentence):
            found.append(sentence)
            start = gap.end()
    rest = paragraph[start:].strip()
    if SENTENCE_END.search(rest):
        found.append(rest)
    return found


def describe(text: str) -> str | None:
    """Make one line of text from a Description field; None when it is not fit for a row."""
    short, _, long_text = text.partition("\n")
    result = " ".join(short.split())
    if not SENTENCE_END.search(result):
        result += "."
    for sentence in (item for paragraph in prose(long_text) for item in sentences(paragraph)):
        if len(result) + 1 + len(sentence) > MAX_CHARS:
            break
        result += " " + sentence
    result = unicodedata.normalize("NFC", result)
    if not MIN_CHARS <= len(result) <= MAX_CHARS:
        return None
    if SKIP_TEXT.search(text) or SKIP_SHORT.search(short):
        return None
    if ADDRESS.search(result) or DAMAGED.search(result):
        return None
    if any(unicodedata.category(char).startswith("C") for char in result):
        return None
    return result


def digest(purpose: str, package: str) -> str:
    """Return the hash that stands for a random number."""
    return hashlib.sha256(f"debian_sections:{purpose}:{package}".encode()).hexdigest()


def candidates(packages: str, translations: str) -> Iterator[Row]:
    """Yield every package that is fit for a row."""
    long_texts = {
        (fields["Package"], fields["Description-md5"]): fields["Description-en"]
        for fields in stanzas(translations)
        if "Description-en" in fields
    }
    for fields in stanzas(packages):
        name, section = fields["Package"], fields.get("Section", "")
        if section not in SECTIONS:
            continue
        if SKIP_PREFIX.search(name) or SKIP_SUFFIX.search(name) or "-plugin-" in name:
            continue
        if SKIP_ROLE.search(fields.get("Tag", "")):
            continue
        long_text = long_texts.get((name, fields.get("Description-md5", "")))
        description = describe(long_text) if long_text else None
        if description:
            source = fields.get("Source", name).split()[0]
            yield Row(name, source, section, description)


def family(row: Row) -> str:
    """Return the first word of a package name without its digits: sibling packages share it."""
    return row.package.split("-")[0].rstrip("0123456789.+")


def summary(row: Row) -> str:
    """Return the first sentence of a description in a form that is easy to compare."""
    return sentences(row.description)[0].casefold()


def first_of_each(rows: list[Row], key: Callable[[Row], str]) -> list[Row]:
    """Keep one row for each key: the one named as its source, else the one with the least hash."""
    kept: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: (row.package != row.source, digest("one", row.package))):
        kept.setdefault(key(row), row)
    return list(kept.values())


def select(rows: list[Row]) -> list[Row]:
    """Choose at most one package a source, a family and a summary, then as many for each section."""
    single = rows
    for key in (lambda row: row.source, family, summary):
        single = first_of_each(single, key)
    chosen: list[Row] = []
    for section in SECTIONS:
        pool = [row for row in single if row.section == section]
        pool.sort(key=lambda row: digest("choose", row.package))
        if len(pool) < ROWS_PER_SECTION:
            raise SystemExit(f"section {section}: only {len(pool)} packages are fit for a row")
        chosen.extend(pool[:ROWS_PER_SECTION])
    chosen.sort(key=lambda row: digest("order", row.package))
    return chosen


def main() -> int:
    """Write the data set."""
    parser = argparse.ArgumentParser(description="Remake packages.jsonl from the package index.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "packages.jsonl")
    out: Path = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        packages, translations = read_index(Path(folder))
    rows = select(list(candidates(packages, translations)))
    lines = (
        json.dumps(
            {"package": row.package, "description": row.description, "section": row.section},
            ensure_ascii=False,
        )
        for row in rows
    )
    out.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")
    print(f"{len(rows)} rows, {len(SECTIONS)} sections", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
