"""Where rows come from: the bytes of a file or of standard input, unpacked, and the text that they are."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple, TextIO, cast

from workers.cli.inputs.rows import UnreadableInputs

MAX_CHARACTERS = 8 * 1024 * 1024
"""Of one row. What a message takes is far less; what is longer is named, and passed over."""
HEAD_BYTES = 64 * 1024
SAMPLE_BYTES = 1024 * 1024

_PACKED: dict[bytes, tuple[str, Callable[[BinaryIO], Any]]] = {
    b"\x1f\x8b": (".gz", gzip.open),
    b"\x28\xb5\x2f\xfd": (".zst", lambda stream: _zstandard(stream)),
    b"BZh": (".bz2", bz2.open),
    b"\xfd7zXZ\x00": (".xz", lzma.open),
}
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8"),
)
_MARK = "dspex.mark"
_MARKED = re.compile("[\udc00-\udcff]")


@dataclass
class Source:
    """A file of inputs, open.

    Attributes:
        name: as the command names it.
        suffix: of what is in it, in lower case and without that of the packing: `.csv` of `A.CSV.gz`.
        path: where it is a file.
        stream: its bytes, unpacked.
        size: bytes of the file, where it is one that is not packed.
    """

    name: str
    suffix: str
    path: Path | None
    stream: io.BufferedReader
    size: int | None

    def text(self, encoding: str | None) -> TextIO:
        """Its text. A byte that is none in its encoding becomes a mark, which `Line.flaw` finds.

        Args:
            encoding: as the user says it; else by its byte order mark, or UTF-8.

        Raises:
            UnreadableInputs: it is in another encoding.
        """
        chosen = self._encoding(encoding)
        self.encoding = chosen
        return io.TextIOWrapper(self.stream, encoding=chosen, errors=_MARK, newline="")

    def head(self) -> bytes:
        """Its first bytes, which are still to be read."""
        return self.stream.peek(HEAD_BYTES)[:HEAD_BYTES]

    def lines(self) -> int | None:
        """How many lines it has: counted where it is small, else by its first part; None: unknown."""
        if self.path is None or not self.size:
            return None
        with self.path.open("rb") as file:
            sample = file.read(SAMPLE_BYTES)
        return round(sample.count(b"\n") * self.size / len(sample)) if sample else 0

    def _encoding(self, given: str | None) -> str:
        head = self.head()
        marked = next((name for mark, name in _BYTE_ORDER_MARKS if head.startswith(mark)), None)
        if given is None:
            if marked is None and head[:4096].count(0) > len(head[:4096]) / 5:
                raise UnreadableInputs(
                    f"--inputs: {self.name} has zero bytes and no byte order mark: say what it is, "
                    "such as --encoding utf-16-le"
                )
            return marked or "utf-8"
        chosen = text_encoding(given)
        if marked is not None and not chosen.replace("-", "_").startswith(marked.replace("-", "_")):
            raise UnreadableInputs(f"--encoding: {self.name} begins with the byte order mark of {marked.upper()}")
        return chosen

    encoding: str = "utf-8"


def text_encoding(name: str) -> str:
    """An encoding of text by any of its names.

    Raises:
        UnreadableInputs: there is none of this name.
    """
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        found = None
    if found is None or not getattr(found, "_is_text_encoding", True):
        raise UnreadableInputs(f"--encoding: {name!r} is no encoding: use utf-8, utf-16, cp1252, latin-1, ...")
    return found.name


@contextmanager
def opened(name: str) -> Generator[Source]:
    """A file by its path; `-` is standard input.

    Raises:
        UnreadableInputs: it cannot be opened.
    """
    with ExitStack() as stack:
        path = None if name == "-" else Path(name)
        if path is None:
            stream = cast("io.BufferedReader", sys.stdin.buffer)
        else:
            try:
                stream = stack.enter_context(path.open("rb"))
                stream.peek(1)
            except OSError as error:
                raise UnreadableInputs(f"--inputs: {name}: {error.strerror}") from None
        suffixes = [] if path is None else [suffix.lower() for suffix in path.suffixes]
        size = path.stat().st_size if path is not None and path.is_file() else None
        head = stream.peek(8)
        for magic, (suffix, unpack) in _PACKED.items():
            if head.startswith(magic):
                stream = io.BufferedReader(stack.enter_context(unpack(stream)))
                suffixes, size = [s for s in suffixes if s != suffix], None
        packed = next((s for s in suffixes[-1:] if s in {suffix for suffix, _ in _PACKED.values()}), None)
        if packed is not None and head:
            raise UnreadableInputs(f"--inputs: {name} is called {packed}, and is not packed so")
        yield Source("standard input" if path is None else name, suffixes[-1] if suffixes else "", path, stream, size)


def _zstandard(stream: BinaryIO) -> IO[bytes]:
    import zstandard

    return zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)


class Line(NamedTuple):
    """A line of text with its end, and its number from 1; `over`: it is too long, and its text is not whole."""

    number: int
    text: str
    over: bool = False

    def flaw(self, encoding: str) -> str | None:
        """What is wrong with it as text."""
        if self.over:
            return f"is longer than {MAX_CHARACTERS:,} characters"
        return flaw_of(self.text, encoding)


def flaw_of(text: str, encoding: str) -> str | None:
    """What is wrong with a text: a byte that its encoding does not have."""
    if text.isascii():
        return None
    found = _MARKED.search(text)
    if found is None:
        return None
    byte = ord(found[0]) - 0xDC00
    return (
        f"has a byte that is not {encoding.upper()} (0x{byte:02X}, at character {found.start() + 1}): "
        "if the file is in another encoding, give it by --encoding"
    )


class Lines:
    """The lines of a text, each of a bounded length; some may be put back."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._back: deque[Line] = deque()
        self._number = 0

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        if self._back:
            return self._back.popleft()
        text = self._stream.readline(MAX_CHARACTERS)
        if not text:
            raise StopIteration
        self._number += 1
        over = len(text) == MAX_CHARACTERS and not text.endswith(("\n", "\r"))
        if over:
            while (more := self._stream.readline(MAX_CHARACTERS)) and not more.endswith(("\n", "\r")):
                pass
        return Line(self._number, text.removeprefix("\ufeff") if self._number == 1 else text, over)

    def put_back(self, lines: list[Line]) -> None:
        """Have these come next."""
        self._back.extendleft(reversed(lines))


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(_MARK, _mark)
