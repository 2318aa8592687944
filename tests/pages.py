"""The pages that people read, taken apart as CommonMark has them: headings, links, and code."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[1]
PAGES = tuple(
    sorted(
        str(path.relative_to(ROOT))
        for pattern in ("*.md", "docs/**/*.md", "examples/*/*.md", "messages/*.md", "benchmarks/results/*.md")
        for path in ROOT.glob(pattern)
    )
)
"""Every page, by its path in the repository."""
GENERATED = ("benchmarks/results/README.md", "benchmarks/results/profile.md")
OURS = tuple(path for path in PAGES if path not in ("CHANGELOG.md", *GENERATED))
"""The pages that say what holds now. The others say what was, and are not written by hand."""


class Block(NamedTuple):
    """A block of code: where it is, the heading that it is under, and its language; "" is one that only is indented."""

    page: str
    line: int
    heading: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


class Span(NamedTuple):
    """A piece of code, or the target of a link, within a sentence."""

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


class Page(NamedTuple):
    """What is on a page. An anchor is a heading as GitHub and MyST name it."""

    anchors: frozenset[str]
    links: tuple[Span, ...]
    spans: tuple[Span, ...]
    blocks: tuple[Block, ...]


@cache
def page(path: str) -> Page:
    """A page of the repository, read."""
    tokens = MarkdownIt("commonmark").enable("table").parse((ROOT / path).read_text(encoding="utf-8"))
    headings, links, spans, blocks = list[str](), list[Span](), list[Span](), list[Block]()
    line = 1
    for before, token in zip([Token("", "", 0), *tokens], tokens, strict=False):
        line = token.map[0] + 1 if token.map else line
        if token.type in ("fence", "code_block"):
            language = (token.info.split() or [""])[0]
            first = line + (token.type == "fence")
            blocks.append(Block(path, first, headings[-1] if headings else "", language, token.content))
        for child in token.children or ():
            target = child.attrs.get("href") or child.attrs.get("src")
            if target is not None:
                links.append(Span(path, line, str(target)))
            if child.type == "code_inline":
                spans.append(Span(path, line, child.content))
        if before.type == "heading_open":
            headings.append("".join(child.content for child in token.children or ()))
    return Page(frozenset(_anchors(headings)), tuple(links), tuple(spans), tuple(blocks))


def _anchors(headings: list[str]) -> list[str]:
    seen = Counter[str]()
    found = []
    for heading in headings:
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.append(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def blocks(*languages: str, of: str | None = None) -> list[Block]:
    """The blocks of these languages: on one page, or on all."""
    found = [block for path in ([of] if of else PAGES) for block in page(path).blocks]
    return [block for block in found if block.language in languages]


def block(path: str, language: str, beginning: str = "") -> str:
    """The code of a page that begins so.

    Raises:
        ValueError: there is none, or there are several.
    """
    (found,) = (block.text for block in blocks(language, of=path) if block.text.startswith(beginning))
    return found
