"""`--input image=@cat.png`: a file of the user's, which only an argument names."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from dspex import Signature
from workers.cli.inputs.reading import read_rows
from workers.cli.inputs.rows import UnreadableInputs

PNG = b"\x89PNG\r\n\x1a\n and pixels"
URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
SEEN = Signature.parse("image: dspy.Image, more: list[dspy.Image] | None, file: dspy.File | None, text: str = '' -> b")


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    path.write_bytes(PNG)
    return path


def test_a_file_is_read(cat: Path, tmp_path: Path) -> None:
    report = tmp_path / "the report.csv"
    report.write_text("a,b\n")
    untold = tmp_path / "cat"
    untold.write_bytes(PNG)
    (row,) = read_rows(SEEN, None, [f"image=@{untold}", f"more=@{cat}", f"file=@{report}", f"text=@{cat}"])
    named = f"data:text/csv;name=the%20report.csv;base64,{base64.b64encode(report.read_bytes()).decode()}"
    assert row.inputs == {"image": URL, "more": [URL], "file": named, "text": f"@{cat}"}


def test_what_is_no_argument_reads_no_file(cat: Path, tmp_path: Path) -> None:
    for name, content in (("a.csv", f"image\n@{cat}\n"), ("a.jsonl", f'{{"image": "@{cat}"}}\n')):
        table = tmp_path / name
        table.write_text(content)
        (row,) = read_rows(SEEN, str(table), [])
        assert row.inputs is None
        assert [problem.field for problem in row.problems] == ["image"]
    table = tmp_path / "b.csv"
    table.write_text(f'image,more\n"{URL}","[""{URL}""]"\n')
    (row,) = read_rows(SEEN, str(table), [])
    assert row.inputs == {"image": URL, "more": [URL], "file": None, "text": ""}


@pytest.mark.parametrize(
    ("name", "body", "why"),
    [
        ("no.png", None, "cannot be read: No such file or directory"),
        ("cat.jpg", PNG, "is not what 'image/jpeg' says"),
        ("cat.svg", b"<svg/>", "'image/svg+xml' is not a media type for an image"),
        ("empty.png", b"", "is empty"),
    ],
)
def test_a_file_that_is_no_image(tmp_path: Path, name: str, body: bytes | None, why: str) -> None:
    path = tmp_path / name
    if body is not None:
        path.write_bytes(body)
    with pytest.raises(UnreadableInputs) as caught:
        list(read_rows(SEEN, None, [f"image=@{path}"]))
    assert str(caught.value).startswith(f"--input: image: {path}")
    assert why in str(caught.value)


def test_a_file_without_end() -> None:
    with pytest.raises(UnreadableInputs, match="is not a media type for an image"):
        list(read_rows(SEEN, None, ["image=@/dev/zero"]))
