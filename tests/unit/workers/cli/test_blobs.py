"""`dspex blob`, and large values in `dspex run` and `dspex execution show`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dspex.blobs import blob_digest, open_store
from dspex.blobs.values import BLOBS
from workers.cli.main import main

LARGE = "x" * 1_500_000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DSPEX_BLOBS", "blobs")
    monkeypatch.setenv("DSPEX_DATABASE_URL", f"sqlite:///{tmp_path}/dspex.db")
    return tmp_path


def lines(*words: str, code: int = 0, given: bytes | None = None) -> str:
    done = CliRunner().invoke(main, list(words), input=given)
    assert done.exit_code == code, done.output
    return done.output


def test_put_show_and_get(folder: Path) -> None:
    (folder / "a.png").write_bytes(b"\x89PNG")
    digest = blob_digest(b"\x89PNG")
    assert lines("blob", "put", "a.png") == f"{digest} 4 bytes image/png\n"
    assert json.loads(lines("blob", "put", "-", "--media-type", "image/png", "--json", given=b"\x89PNG")) == {
        "digest": digest,
        "size": 4,
        "media_type": "image/png",
    }
    assert lines("blob", "show", digest) == f"{digest} 4 bytes image/png\n"
    lines("blob", "get", digest, "--output", "b.png")
    assert (folder / "b.png").read_bytes() == b"\x89PNG"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "sha256:x"), "'sha256:x' is not a digest"),
        (("get", "sha256:" + "0" * 64), "there is no blob"),
        (("put", "absent"), "absent: No such file"),
        (("put", "a", "--media-type", "x"), "'x' is not a media type"),
        (("show", "sha256:" + "0" * 64, "--tenant", "acme"), "--tenant: there is one tenant"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(folder: Path, words: tuple[str, ...], said: str) -> None:
    (folder / "a").write_bytes(b"")
    told = lines("blob", *words, code=2)
    assert said in told
    assert told.count("\n") == 1


def test_without_a_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DSPEX_BLOBS")
    assert "dspex: DSPEX_BLOBS: there is no blob store" in lines("blob", "show", "x", code=2)
    monkeypatch.setenv("DSPEX_BLOBS", "dspex.db/x")
    (folder / "dspex.db").touch()
    assert "dspex: DSPEX_BLOBS: the folder of blobs" in lines("blob", "show", "x", code=2)


def test_a_run_of_rows_that_are_larger_than_a_message(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPEX_BLOB_THRESHOLD", "1024")
    words = {"type": "array", "items": {"type": "string"}, "minItems": 200}
    signature = {"inputs": [{"name": "question", "type": "str"}], "outputs": [{"name": "words", "type": words}]}
    (folder / "signature.json").write_text(json.dumps(signature), encoding="utf-8")
    (folder / "rows.jsonl").write_text(json.dumps({"question": LARGE}), encoding="utf-8")
    result: dict[str, Any] = {}
    for _ in range(2):  # the second time, they are results of an earlier run
        lines("run", "signature.json", "--inputs", "rows.jsonl", "--output", "out.jsonl", "--adapter", "mock")
        result = json.loads((folder / "out.jsonl").read_text(encoding="utf-8"))
        assert (result["status"], result["inputs"]) == ("completed", {"question": LARGE})
        assert len(result["outputs"]["words"]) >= 200
    shown = json.loads(lines("execution", "show", result["execution_id"], "--json"))
    assert shown["inputs"] == {
        BLOBS: {"question": {"digest": blob_digest(LARGE.encode()), "size": 1_500_000, "media_type": "text/plain"}}
    }
    assert list(shown["outputs"][BLOBS]) == ["words"]
    whole = json.loads(lines("execution", "show", result["execution_id"], "--json", "--whole"))
    assert (whole["inputs"], whole["outputs"]) == ({"question": LARGE}, result["outputs"])
    assert len(list(open_store("blobs").stored())) == 2


def test_a_run_without_a_store_says_what_would_help(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DSPEX_BLOBS")
    (folder / "rows.jsonl").write_text(json.dumps({"question": LARGE}), encoding="utf-8")
    told = lines("run", "question -> answer", "--inputs", "rows.jsonl", "--adapter", "mock", code=1)
    assert "fit into a message: set DSPEX_BLOBS, where large values go" in told
