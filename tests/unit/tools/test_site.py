"""The site, without building it: every page is in its contents, every module that others import is in the reference."""

from __future__ import annotations

import importlib
import re
import runpy

import dspex
from tests.pages import PAGES, ROOT

CONF = runpy.run_path(str(ROOT / "docs" / "conf.py"))
API = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "api").glob("*.rst"))}
PUBLIC = (
    "dspex",
    "dspex.aio",
    "dspex.client",
    "dspex.errors",
    "dspex.outbox",
    "dspex.producer",
    "dspex.webhooks",
    "adapters.contract",
    "adapters.port",
    "workers.local",
)
"""What others import."""


def test_every_page_is_in_the_contents_once() -> None:
    listed = re.findall(r"^(?:[\w ]+ <)?([\w/]+)>?$", CONF["CONTENTS"], re.MULTILINE)
    pages = {path.removesuffix(".md") for path in PAGES if not path.startswith("docs/decisions/0")}
    assert sorted(listed) == sorted({*pages - {"README"}, "docs/api/index"})
    assert sorted(re.findall(r"^   (\w+)$", API["index"], re.MULTILINE)) == sorted(API.keys() - {"index"})


def test_the_reference_has_what_others_import() -> None:
    named = set(re.findall(r"^\.\. (?:auto)?module:: (\S+)$", "\n".join(API.values()), re.MULTILINE))
    assert set(PUBLIC) - named == set()
    for module in named:
        importlib.import_module(module)


def test_what_the_reference_names_is_there() -> None:
    for text in API.values():
        for name in re.findall(r"^\.\. auto(?:class|function):: (\S+)$|:class:`([\w.]+)`", text, re.MULTILINE):
            module, _, attribute = "".join(name).rpartition(".")
            assert hasattr(importlib.import_module(module), attribute), name
    (left_out,) = re.findall(r":exclude-members: (.*)", API["dspex"])
    elsewhere = {name for name in left_out.split(", ") if name[0].isupper()}
    assert elsewhere <= set(dspex.__all__)
    assert [name for name in elsewhere if f".{name}`" not in API["dspex"]] == []


def test_every_name_of_dspex_says_what_it_is() -> None:
    assert [name for name in dspex.__all__ if not (getattr(dspex, name).__doc__ or "").strip()] == []
