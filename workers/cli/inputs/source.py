"""The source of rows: the decompressed bytes of a file or of standard input, and their text."""

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
"""The longest row. A message holds far less; a longer row is reported and skipped."""
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
    """An open file of inputs.

    Attributes:
        name: the name given to the command.
        suffix: the suffix of its content, in lower case: `.csv` for `A.CSV.gz`.
        path: the path, if it is a file.
        stream: its decompressed bytes.
        size: the size of the file in bytes, if it is not compressed.
    """

    name: str
    suffix: str
    path: Path | None
    stream: io.BufferedReader
    size: int | None

    def text(self, encoding: str | None) -> TextIO:
        """The text of the file. A byte that is invalid in the encoding becomes a mark, which `Line.flaw` finds.

        Args:
            encoding: the user's choice; by default that of the byte order mark, or UTF-8.

        Raises:
            UnreadableInputs: the file has another encoding.
        """
        chosen = self._encoding(encoding)
        self.encoding = chosen
        return io.TextIOWrapper(self.stream, encoding=chosen, errors=_MARK, newline="")

    def head(self) -> bytes:
        """The first bytes, without consuming them."""
        return self.stream.peek(HEAD_BYTES)[:HEAD_BYTES]

    def lines(self) -> int | None:
        """The number of lines: counted for a small file, estimated for a large one; None if not known."""
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
    """The name of a text encoding, from any of its names.

    Raises:
        UnreadableInputs: there is no such encoding.
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
    """Open a file by its path; `-` is standard input.

    Raises:
        UnreadableInputs: the file cannot be opened.
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
    """A line of text with its line end, and its number from 1. `over`: it is too long, and its text is cut."""

    number: int
    text: str
    over: bool = False

    def flaw(self, encoding: str) -> str | None:
        """What is wrong with the text, or None."""
        if self.over:
            return f"is longer than {MAX_CHARACTERS:,} characters"
        return flaw_of(self.text, encoding)


def flaw_of(text: str, encoding: str) -> str | None:
    """What is wrong with a text: a byte that is invalid in the encoding; None if nothing."""
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
    """The lines of a text, of bounded length. Lines may be put back."""

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
        """Return these lines next."""
        self._back.extendleft(reversed(lines))


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(_MARK, _mark)
