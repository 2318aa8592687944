"""Makes text from outside safe to show: without control characters, added lines, reversed text or passwords.

Stored and sent text stays as it came, except for characters that no database takes (`storable`). The other functions
are for terminals, logs and errors.
"""

from __future__ import annotations

import re

_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # controls: C0, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # changes of direction
    "\u2028\u2029\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # invisible characters
    "\ud800-\udfff]"  # halves of surrogate pairs
)

_BEYOND_ASCII = re.compile("[^\x00-\x7f]")

# Bounded repetitions: no crafted text can make a match slow.
_LOGIN = re.compile(r"(://[^\s/:@]*):(?!password@)[^\s/]*@")  # our own errors show how a URL is written
_QUERY = re.compile(
    r"(?P<url>\b[a-z][a-z0-9+.-]{0,30}:/[^\s?#'\"]{0,500}\?)(?P<query>[^\s#'\"]*)",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"(?P<name>\b(?:ssl)?(?:password|passwd|passphrase|pwd)=)('[^']{0,200}'|[^\s&;,'\"]+)",
    re.IGNORECASE,
)
_PLAIN = frozenset({"host", "port", "dbname", "user", "sslmode", "connect_timeout", "heartbeat", "socket_timeout"})
"""URL parameters whose values are not secret. All others are masked, as a secret may have any name."""


def storable(text: str) -> str:
    """The text with U+FFFD or ? in place of what cannot be stored: U+0000, and halves of surrogate pairs."""
    return text.encode(errors="replace").decode().replace("\x00", "\ufffd")


def visible(text: str) -> str:
    """The text in one line, with escapes for invisible characters: `\\x1b`, `\\n`, `\\u202e`."""
    return _HIDDEN.sub(_escape, text)


def visible_lines(text: str) -> str:
    """Like `visible`, but line breaks are kept."""
    return "\n".join(map(visible, text.split("\n")))


def visible_json(text: str) -> str:
    """A JSON text with invisible characters escaped. It has the same value.

    Args:
        text: valid JSON.
    """
    if text.isascii() and text.isprintable():
        return text
    return _HIDDEN.sub(lambda found: found[0] if found[0] == "\n" else _escape_json(found[0]), text)


def ascii_json(text: str) -> str:
    """A JSON text in ASCII. It has the same value."""
    return text if text.isascii() else _BEYOND_ASCII.sub(lambda found: _escape_json(found[0]), text)


def masked(text: str) -> str:
    """The text with the passwords of URLs and the values of their query parameters masked."""
    if "://" not in text and "=" not in text:
        return text
    text = _QUERY.sub(lambda found: found["url"] + "&".join(map(_parameter, found["query"].split("&"))), text)
    return _NAMED.sub(r"\g<name>***", _LOGIN.sub(r"\1:***@", text))


def _parameter(given: str) -> str:
    name, equals, _ = given.partition("=")
    return given if name in _PLAIN or not equals else f"{name}=***"


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _escape_json(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
