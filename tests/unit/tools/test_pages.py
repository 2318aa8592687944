"""What the pages name is there: what links lead to, files, commands and options, settings, targets of make, extras."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from itertools import chain
from typing import Any
from urllib.parse import unquote

import click
import pytest

from tests.pages import OURS, PAGES, ROOT, Block, Span, blocks, page
from workers.cli.main import main
from workers.settings import Settings, load_settings

SHELLS = ("", "sh", "bash")
FOLDERS = "messages|adapters|store|workers|migrations|tests|benchmarks|examples|deploy|docs|constraints"
NAMED = re.compile(rf"\b((?:{FOLDERS})/[\w./-]*)")
PLACEHOLDERS = {"ID": "0190f5e2-7f43-7a0c-8f3e-5f1c5d7f2a11", "REVISION": "0004"}
OF_OTHERS = {"--memory", "--pids-limit", "--cap-drop", "--security-opt", "--read-only", "--scale", "--no-deps"}
"""Options of Docker and pip."""


def commands(group: click.Group = main, path: tuple[str, ...] = ("dspex",)) -> Iterator[tuple[str, click.Command]]:
    """Every command of `dspex` that does something, by its words."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands())
OPTIONS = {option for command in (main, *COMMANDS.values()) for it in command.params for option in it.opts} | {"--help"}


def lines(block: Block) -> Iterator[Span]:
    """The lines of a block as a shell has them: a backslash at the end goes on, and so does an open quote."""
    text, quoted = "", False
    for number, line in enumerate(block.text.splitlines(), block.line):
        text += line
        quoted = text.count("'") % 2 == 1 and "='" in text
        if text.endswith("\\"):
            text = text[:-1]
        elif not quoted:
            yield Span(block.page, number, text)
            text = ""
    assert not quoted, f"{block}: a quote that is not closed"


def words(line: Span) -> list[str]:
    """What a shell makes of a line, without its comment."""
    try:
        return shlex.split(line.text, comments=True)
    except ValueError:  # a line of a picture, or words behind a command
        return line.text.partition("  ")[0].split()


def shell(*paths: str) -> Iterator[tuple[Span, list[str]]]:
    """Every line of a block that a shell may get, and its words."""
    for path in paths or OURS:
        for line in chain.from_iterable(map(lines, (b for b in page(path).blocks if b.language in SHELLS))):
            if said := words(line):
                yield line, said


def assignments(said: list[str]) -> dict[str, str]:
    """The settings that a line sets."""
    pairs = (word.partition("=") for word in said if word.startswith("DSPEX_") and "=" in word)
    return {name: value for name, _, value in pairs}


def without_assignments(said: list[str]) -> list[str]:
    rest = list(said)
    while rest and re.fullmatch(r"[A-Z_]+=.*", rest[0]):
        del rest[0]
    return rest


def parse(said: list[str]) -> None:
    """Have click read `dspex …`, as far as it reads before anything is done.

    Raises:
        click.UsageError: it would be refused.
    """
    command: click.Command = main
    context, rest = click.Context(main, info_name="dspex"), [PLACEHOLDERS.get(word, word) for word in said[1:]]
    while isinstance(command, click.Group):
        name = rest.pop(0) if rest else ""
        found = command.get_command(context, name)
        if found is None:
            raise click.UsageError(f"{context.command_path}: there is no {name!r}")
        command, context = found, click.Context(found, parent=context, info_name=name)
        if not rest and isinstance(command, click.Group):
            return  # a group that a sentence names
    if rest:
        command.make_context(context.info_name, rest, parent=context.parent)


@pytest.mark.parametrize("path", PAGES)
def test_links_lead_somewhere(path: str) -> None:
    wrong = []
    for link in page(path).links:
        if re.match(r"[a-z]+:", link.text):
            continue
        target, _, anchor = unquote(link.text).partition("#")
        file = (ROOT / path).parent / target if target else ROOT / path
        if not file.exists() or not file.resolve().is_relative_to(ROOT):
            wrong.append(f"{link}: there is no such file")
        elif anchor and anchor not in page(str(file.resolve().relative_to(ROOT))).anchors:
            wrong.append(f"{link}: there is no such heading")
    assert wrong == []


@pytest.mark.parametrize("path", OURS)
def test_files_that_are_named_are_there(path: str) -> None:
    texts = (*page(path).spans, *(line for block in page(path).blocks for line in lines_of(block)))
    named = [(text, name.rstrip(".")) for text in texts for name in NAMED.findall(text.text)]
    folders = [ROOT, (ROOT / path).parent, ROOT / "messages"]
    assert [f"{text}" for text, name in named if not any((folder / name).exists() for folder in folders)] == []


def lines_of(block: Block) -> list[Span]:
    text = block.text.splitlines() if block.language in SHELLS else []
    return [Span(block.page, number, line) for number, line in enumerate(text, block.line)]


def test_every_line_that_begins_with_dspex_is_one_that_it_takes() -> None:
    wrong, seen = [], 0
    for line, said in shell():
        said = without_assignments(said)
        if said[:1] != ["dspex"] or line.text.startswith("dspex  ") or any("|" in word for word in said):
            continue  # or it is a line of a picture, or of a list
        seen += 1
        try:
            parse(said)
        except click.UsageError as error:
            wrong.append(f"{line}: {error.format_message()}")
    assert wrong == []
    assert seen > 12


@pytest.mark.parametrize("path", OURS)
def test_commands_and_options_in_sentences_are_there(path: str) -> None:
    wrong = []
    for span in page(path).spans:
        if re.match(r"dspex [a-z]", span.text) and "|" not in span.text:
            try:
                parse(words(span))
            except click.UsageError as error:
                wrong.append(f"{span}: {error.format_message()}")
        elif re.match(r"--[a-z]", span.text) and re.split("[ =]", span.text)[0] not in OPTIONS | OF_OTHERS:
            wrong.append(f"{span}: no command has it")
    assert wrong == []


def test_the_listed_verbs_are_all_there_are() -> None:
    listed = set[str]()
    for _, said in shell("docs/client.md"):
        if said[:1] == ["dspex"] and "|" in said[-1]:
            listed |= {" ".join((*said[:-1], verb)) for verb in said[-1].split("|")}
    groups = {name.rpartition(" ")[0] for name in listed}
    assert listed == {name for name in COMMANDS if name.rpartition(" ")[0] in groups}
    assert groups == {name.rpartition(" ")[0] for name in COMMANDS} - {"dspex"}


@pytest.mark.parametrize("path", OURS)
def test_settings_that_are_named_are_there(path: str) -> None:
    there = {f"DSPEX_{name.upper()}" for name in Settings.model_fields}
    there |= set(re.findall(r"DSPEX_TEST_[A-Z_]+[A-Z]", (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")))
    named = re.findall(r"\bDSPEX_[A-Z_]*[A-Z]\b", (ROOT / path).read_text(encoding="utf-8"))
    assert sorted(set(named) - there) == []


def test_settings_that_are_set_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    set_ = [(line, pair) for line, said in shell() for pair in assignments(said).items()]
    for path in OURS:
        for span in page(path).spans:
            if re.match(r"DSPEX_\w+=\S", span.text):
                set_ += [(span, pair) for pair in assignments(words(span)).items()]
    assert len(set_) > 10
    for where, (name, value) in set_:
        with monkeypatch.context() as environment:
            environment.setenv(name, value)
            try:
                load_settings()
            except Exception as error:  # noqa: BLE001  whatever is wrong with it, this is where
                pytest.fail(f"{where}: {error}")


def test_targets_of_make_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    spans = [span for path in OURS for span in page(path).spans if span.text.startswith("make ")]
    named = [(line, said[1]) for line, said in shell() if said[0] == "make" and len(said) > 1]
    named += [(span, span.text.split()[1]) for span in spans]
    assert [f"{where}" for where, target in named if target not in targets] == []
    assert len({target for _, target in named}) > 8


def test_extras_and_modules_are_there() -> None:
    projects = [tomllib.loads((ROOT / it / "pyproject.toml").read_text(encoding="utf-8")) for it in (".", "messages")]
    extras = {it["project"]["name"]: set(it["project"].get("optional-dependencies", ())) for it in projects}
    wrong = []
    for path in OURS:
        text = (ROOT / path).read_text(encoding="utf-8")
        for name, wanted in re.findall(r"\b(dspex(?:-server)?)\[([\w,]+)\]", text):
            wrong += [f"{path}: {name}[{extra}]" for extra in wanted.split(",") if extra not in extras[name]]
        for module in re.findall(r"python -m (\w+(?:\.\w+)*)", text):
            files = [ROOT / base / module.replace(".", "/") for base in (".", "messages")]
            if not any(it.with_suffix(".py").is_file() or (it / "__main__.py").is_file() for it in files):
                wrong.append(f"{path}: python -m {module}")
    assert wrong == []


def test_the_checks_see_what_is_wrong() -> None:
    with pytest.raises(click.UsageError, match="there is no 'burn'"):
        parse(["dspex", "program", "burn", "ID"])
    with pytest.raises(click.UsageError, match="--loud"):
        parse(["dspex", "execution", "list", "--loud"])
    with pytest.raises(click.UsageError, match="not a valid UUID"):
        parse(["dspex", "execution", "show", "one"])
    there: Any = page("README.md")
    assert "five-minutes" in there.anchors
    assert blocks("python")
