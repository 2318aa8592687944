"""Images, audio and files as values of inputs: a data URL, checked by its type, its first bytes and its size.

Or the address or the blob that a worker brings the body of (`workers.attachments`): `https://example.org/cat.png`,
`blob:sha256:` and 64 digits.

| type  | a value is, for instance                              | media types                                        |
|-------|-------------------------------------------------------|----------------------------------------------------|
| image | data:image/png;base64,iVBORw0...                      | png, jpeg, gif, webp                               |
| audio | data:audio/wav;base64,UklGR...                        | wav, mp3, ogg, flac, aac, m4a, webm                |
| file  | data:application/pdf;name=report.pdf;base64,JVBERi... | pdf, plain text, csv, markdown, json, docx, xlsx,  |
|       |                                                       | pptx                                               |

In a data URL (RFC 2397), the body is base64 without white space. A file may have a `name`, percent-encoded; no other
parameter is taken. A value is never a path, and nothing is decoded beyond base64: the first bytes must be those of the
type that is named, and what else is in a body is for the LM's provider to read.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args
from urllib.parse import quote, unquote

from pydantic import AfterValidator, StrictStr
from pydantic_core import PydanticCustomError

Kind = Literal["image", "audio", "file"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

MAX_BYTES: Final = 20 * 1024 * 1024
"""The largest body. OpenAI takes images of up to 50 MB in a request, Anthropic 5 MB each, Gemini 20 MB in all."""
MAX_ITEMS: Final = 100
"""The longest list. Anthropic takes 100 images in a request."""
MAX_NAME: Final = 200

_ZIP: Final = rb"PK\x03\x04"
_MPEG: Final = rb"ID3|\xff[\xe2-\xff]"
_MP4: Final = rb".{4}ftyp"
_WAV: Final = rb"RIFF.{4}WAVE"
_BEGINNINGS: Final[Mapping[Kind, Mapping[str, bytes | None]]] = {
    "image": {
        "image/png": rb"\x89PNG\r\n\x1a\n",
        "image/jpeg": rb"\xff\xd8\xff",
        "image/gif": rb"GIF8[79]a",
        "image/webp": rb"RIFF.{4}WEBP",
    },
    "audio": {
        "audio/wav": _WAV,
        "audio/x-wav": _WAV,
        "audio/mpeg": _MPEG,
        "audio/mp3": _MPEG,
        "audio/ogg": rb"OggS",
        "audio/flac": rb"fLaC",
        "audio/x-flac": rb"fLaC",
        "audio/aac": rb"\xff[\xf0-\xf9]|ADIF",
        "audio/mp4": _MP4,
        "audio/m4a": _MP4,
        "audio/x-m4a": _MP4,
        "audio/webm": rb"\x1aE\xdf\xa3",
    },
    "file": {
        "application/pdf": rb"%PDF-",
        "text/plain": None,
        "text/csv": None,
        "text/markdown": None,
        "application/json": None,
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document": _ZIP,
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": _ZIP,
        "application/vnd.openxmlformats-officedocument.presentationml.presentation": _ZIP,
    },
}
"""The media types of each kind, and how their bodies begin; None: they are text in UTF-8.

SVG and HTML, which may hold scripts, are not among them.
"""
_DATA_URL = re.compile(
    r"data:(?P<type>[a-z0-9.+-]{1,40}/[a-z0-9.+-]{1,80})(?:;name=(?P<name>[A-Za-z0-9._~%-]{1,1800}))?;base64,",
    re.ASCII,
)
_BLOB = re.compile(r"blob:(sha256:[0-9a-f]{64})", re.ASCII)
_ADDRESS = re.compile(r"https?://[!-~]{1,2000}", re.ASCII)
_UNTOLD: Final = ("", "application/octet-stream", "binary/octet-stream")
"""Media types of servers that do not know it."""
_NAME = re.compile(r"[^\x00-\x1f\x7f<>\"\\/]+")
"""A name is no path, and cannot end what it is quoted in."""


class Media(NamedTuple):
    """An image, audio or a file.

    Attributes:
        media_type: such as `image/png`.
        data: the body in base64.
        name: the name of a file, if it has one.
    """

    media_type: str
    data: str
    name: str | None = None

    @property
    def url(self) -> str:
        """The data URL, without the name."""
        return f"data:{self.media_type};base64,{self.data}"


def parse(kind: Kind, url: str) -> Media:
    """Read a data URL.

    Raises:
        ValueError: it is none, it is not well-formed, or its body is too large or not of the kind. The text quotes
            nothing of the body.
    """
    match = _DATA_URL.match(url)
    if match is None:
        raise ValueError(
            f"is no data URL: give data:{_example(kind)};base64,... in lower case, without other parameters"
        )
    media_type, data = match["type"], url[match.end() :]
    if len(data) > MAX_BYTES * 4 // 3 + 4:
        raise ValueError(f"has more than {MAX_BYTES} bytes")
    try:
        body = binascii.a2b_base64(data, strict_mode=True)
    except (binascii.Error, ValueError):
        raise ValueError("its body is not base64 (RFC 4648, without white space)") from None
    check_body(kind, media_type, body)
    return Media(media_type, data, _name(kind, match["name"]))


def data_url(kind: Kind, media_type: str, body: bytes, name: str | None = None) -> str:
    """The data URL of a body.

    Raises:
        ValueError: the body is too large or not of the kind, or the name is none.
    """
    check_body(kind, media_type, body)
    named = "" if name is None else f";name={quote(name, safe='')}"
    if name is not None:
        _name(kind, quote(name, safe=""))
    return f"data:{media_type}{named};base64,{binascii.b2a_base64(body, newline=False).decode()}"


def check_body(kind: Kind, media_type: str, body: bytes) -> None:
    """Check that a body may be sent to an LM as this kind.

    Raises:
        ValueError: why it may not.
    """
    known = _BEGINNINGS[kind]
    if media_type not in known:
        raise ValueError(f"'{media_type}' is not a media type for {_a(kind)}: use one of {', '.join(known)}")
    if not body:
        raise ValueError("is empty")
    if len(body) > MAX_BYTES:
        raise ValueError(f"has {len(body)} bytes; at most {MAX_BYTES} are taken")
    beginning = known[media_type]
    fits = _is_text(body) if beginning is None else re.match(beginning, body, re.DOTALL) is not None
    if not fits:
        raise ValueError(f"is not what '{media_type}' says: its first bytes are those of something else")


def check_value(kind: Kind, value: str) -> None:
    """Check a value of an input. What stands at an address, or in a blob, is checked when it is there.

    Raises:
        ValueError: it is none.
    """
    if value.startswith("data:"):
        parse(kind, value)
    elif not (_BLOB.fullmatch(value) or _ADDRESS.fullmatch(value)):
        raise ValueError(
            f"is no {kind}: give a data URL (data:{_example(kind)};base64,...), an https address, or blob:sha256:..."
        )


def blob_of(value: str) -> str | None:
    """The digest of the blob that a value names; None if it names none."""
    match = _BLOB.fullmatch(value)
    return match[1] if match else None


def told(kind: Kind, media_type: str, body: bytes) -> str:
    """The media type of a body: as its server, or whoever stored it, says, or else by its first bytes."""
    if media_type not in _UNTOLD:
        return media_type
    begins = ((name, begin) for name, begin in _BEGINNINGS[kind].items() if begin not in (None, _ZIP))
    return next((name for name, begin in begins if begin and re.match(begin, body, re.DOTALL)), media_type)


def annotation(kind: Kind) -> Any:
    """The annotation of a text that is a value of this kind, and stays text."""

    def check(value: str) -> str:
        try:
            check_value(kind, value)
        except ValueError as error:
            # Not a ValueError: pydantic keeps that with its traceback, a kilobyte for each wrong value.
            raise PydanticCustomError("media", "{text}", {"text": str(error)}) from None
        return value

    return Annotated[StrictStr, AfterValidator(check)]


def _name(kind: Kind, quoted: str | None) -> str | None:
    if quoted is None:
        return None
    if kind != "file":
        raise ValueError("only a file has a name")
    try:
        name = unquote(quoted, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("its name is not in UTF-8") from None
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise ValueError(f"its name must be that of a file, without its folder, of at most {MAX_NAME} characters")
    return name


def _is_text(body: bytes) -> bool:
    try:
        return "\x00" not in body.decode()
    except UnicodeDecodeError:
        return False


def _example(kind: Kind) -> str:
    return next(iter(_BEGINNINGS[kind]))


def _a(kind: Kind) -> str:
    return {"image": "an image", "audio": "audio", "file": "a file"}[kind]
