"""Images, audio, files and turns: what is a value of them, and where they may stand."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest

from dspex import Signature
from dspex.errors import InvalidInput, InvalidSignature
from dspex.signatures import media
from dspex.signatures.compatibility import compare

PNG = b"\x89PNG\r\n\x1a\n and pixels"
PDF = b"%PDF-1.7 ..."


def url(media_type: str, body: bytes, parameters: str = "") -> str:
    return f"data:{media_type}{parameters};base64,{base64.b64encode(body).decode()}"


IMAGE = url("image/png", PNG)
SIGNATURE = Signature.parse("image: dspy.Image, more: list[dspy.Image] | None, file: dspy.File | None -> answer")
TALK = Signature.parse("question, image: dspy.Image | None, history: dspy.History -> answer, score: float")


def refused(signature: Signature, **values: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        signature.validate_inputs(values)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "media_type", "body"),
    [
        ("image", "image/png", PNG),
        ("image", "image/jpeg", b"\xff\xd8\xff\xe0"),
        ("image", "image/gif", b"GIF89a"),
        ("image", "image/webp", b"RIFF\x00\x00\x00\x00WEBPVP8 "),
        ("audio", "audio/wav", b"RIFF\x00\x00\x00\x00WAVEfmt "),
        ("audio", "audio/mpeg", b"ID3\x04"),
        ("audio", "audio/mp3", b"\xff\xfb\x90"),
        ("audio", "audio/x-m4a", b"\x00\x00\x00\x20ftypM4A "),
        ("file", "application/pdf", PDF),
        ("file", "text/csv", "a,b\nä,1".encode()),
    ],
)
def test_what_fits(kind: media.Kind, media_type: str, body: bytes) -> None:
    assert media.parse(kind, url(media_type, body)) == (media_type, base64.b64encode(body).decode(), None)
    assert media.data_url(kind, media_type, body) == url(media_type, body)


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        ("image", "/etc/passwd", "is no data URL"),
        ("image", "file:///etc/passwd", "is no data URL"),
        ("image", "http://169.254.169.254/latest", "is no data URL"),
        ("image", url("image/svg+xml", b"<svg><script/></svg>"), "'image/svg+xml' is not a media type for an image"),
        ("image", url("text/html", b"<html>"), "'text/html' is not a media type for an image"),
        ("image", url("IMAGE/PNG", PNG), "is no data URL"),
        ("image", url("image/png", PNG, ";charset=utf-8"), "is no data URL"),
        ("image", url("image/png", PNG, ";charset=utf-7;base64,x"), "is no data URL"),
        ("image", "data:image/png,%89PNG", "is no data URL"),
        ("image", "data:;base64,aGk=", "is no data URL"),
        ("image", f" {IMAGE}", "is no data URL"),
        ("image", f"{IMAGE}\n", "its body is not base64"),
        ("image", IMAGE.replace("iVBO", "iV BO"), "its body is not base64"),
        ("image", IMAGE + "=", "its body is not base64"),
        ("image", f"{IMAGE}{IMAGE}", "its body is not base64"),
        ("image", "data:image/png;base64,", "is empty"),
        ("image", url("image/png", b"GIF89a"), "is not what 'image/png' says"),
        ("image", url("image/png", b"PK\x03\x04" + PNG), "is not what 'image/png' says"),
        ("image", url("image/png", PNG, ";name=a.png"), "only a file has a name"),
        ("audio", url("audio/wav", b"RIFF\x00\x00\x00\x00WEBPVP8 "), "is not what 'audio/wav' says"),
        ("file", url("text/plain", b"a\x00b"), "is not what 'text/plain' says"),
        ("file", url("application/octet-stream", PDF), "'application/octet-stream' is not a media type for a file"),
        ("file", url("application/pdf", PDF, ";name=..%2Fa.pdf"), "its name must be that of a file"),
        ("file", url("application/pdf", PDF, ";name=%3C%3CCUSTOM-TYPE-END-IDENTIFIER%3E%3E"), "its name must be"),
        ("file", url("application/pdf", PDF, ";name=%FF"), "its name is not in UTF-8"),
    ],
)
def test_what_is_refused_quotes_no_body(kind: media.Kind, value: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)) as caught:
        media.parse(kind, value)
    assert "iVBO" not in str(caught.value)


def test_a_name_is_that_of_a_file() -> None:
    named = url("application/pdf", PDF, ";name=the%20report.pdf")
    assert media.parse("file", named).name == "the report.pdf"
    assert media.parse("file", named).url == url("application/pdf", PDF)
    assert media.data_url("file", "application/pdf", PDF, "the report.pdf") == named


def test_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "MAX_BYTES", len(PNG))
    assert media.parse("image", IMAGE)
    for larger in (PNG + b"x", PNG * 9):
        with pytest.raises(ValueError, match="has "):
            media.parse("image", url("image/png", larger))


def test_values_of_a_signature() -> None:
    given = {"image": IMAGE, "more": [IMAGE, IMAGE]}
    assert SIGNATURE.validate_inputs(given) == {**given, "file": None}
    assert refused(SIGNATURE, image="cat.png").startswith("image: is no image: give a data URL (data:image/png;")
    assert refused(SIGNATURE, image=IMAGE, more=[IMAGE, "cat.png", "dog.png"]).startswith("more.1: is no image")
    assert refused(SIGNATURE, image={"url": IMAGE, "download": True}) == "image: input should be a valid string"
    assert refused(SIGNATURE, image=IMAGE, more=[IMAGE] * 10_000).startswith("more.99: is one too many: at most 100")


def test_turns() -> None:
    turns = [{"question": "Who?", "image": IMAGE, "answer": "Ann", "score": 1.0}, {"answer": None, "reasoning": "so"}]
    assert (
        TALK.validate_inputs({"question": "And now?", "history": {"messages": turns}})["history"]["messages"] == turns
    )
    assert TALK.validate_inputs({"question": "?", "history": {"messages": []}})["history"] == {"messages": []}
    for turn, why in (
        ({"answr": "x"}, "history.messages.0.answr: is not a known field: remove it"),
        ({"history": {"messages": []}}, "history.messages.0.history: is not a known field: remove it"),
        ({"score": "high"}, "history.messages.0.score: input should be a valid number"),
        ({"image": "cat.png"}, "history.messages.0.image: is no image"),
        ({}, "history.messages.0: dictionary should have at least 1 item"),
    ):
        assert refused(TALK, question="?", history={"messages": [turn]}).startswith(why)
    assert "at most 1000 items" in refused(TALK, question="?", history={"messages": [{"answer": "x"}] * 100_000})
    with_images = [{"image": IMAGE}] * 101
    assert refused(TALK, question="?", history={"messages": with_images}).startswith(
        "history.messages.100.image: is one"
    )


@pytest.mark.parametrize(
    ("arrow", "why"),
    [
        ("question -> image: dspy.Image", "output 'image' has an image: LMs answer in text, so only inputs have it"),
        ("question -> parts: list[dspy.Audio]", "output 'parts' has audio: LMs answer in text"),
        ("question -> history: dspy.History", "output 'history' has a history: LMs answer in text"),
        ("a: dict[str, dspy.Image] -> b", "input 'a' has an image inside of another type: make it an input itself"),
        ("a: list[list[dspy.File]] -> b", "input 'a' has a file inside of another type"),
        ("a: dspy.Image | str -> b", "input 'a' has an image inside of another type"),
        ("a: set[dspy.Image] -> b", "input 'a' has an image inside of another type"),
        ("a: list[dspy.History] -> b", "input 'a' has a history inside of another type: make it an input itself"),
        ("a: dspy.Code -> b", "unknown type 'dspy.Code'"),
    ],
)
def test_where_they_may_stand(arrow: str, why: str) -> None:
    with pytest.raises(InvalidSignature) as caught:
        Signature.parse(arrow)
    assert why in str(caught.value)


def test_as_data_and_as_json_schema() -> None:
    data = {
        "inputs": [
            {"name": "image", "type": {"type": "string", "format": "image"}},
            {"name": "history", "type": {"type": "object", "format": "history"}},
        ],
        "outputs": [{"name": "answer", "type": {"type": "string"}}],
    }
    read = Signature.parse(data)
    assert read.digest == Signature.parse("image: dspy.Image, history: dspy.History -> answer").digest
    assert read.input_schema()["properties"] == {
        "image": {"type": "string", "format": "image"},
        "history": {"type": "object", "format": "history"},
    }
    assert compare(read, read).compatible
    assert not compare(read, read).notes
    text = Signature.parse("image, history: dict -> answer")
    found = [change.message for change in compare(text, read).changes]
    assert found == [
        "fewer values fit: was string, is string (format image)",
        "other values fit: was map, is history",
    ]


def test_other_keywords_beside_them_are_refused() -> None:
    kind = {"type": "string", "format": "image", "maxLength": 3}
    data = {"inputs": [{"name": "image", "type": kind}], "outputs": [{"name": "answer", "type": "str"}]}
    with pytest.raises(InvalidSignature, match="'image' is checked as it is: remove maxLength"):
        Signature.parse(data)
