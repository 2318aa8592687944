"""Text from outside, as people are shown it: it moves no cursor, adds no line, turns none around, tells no password.

What is kept and sent stays as it came, save what no database takes (`storable`). The rest is for terminals, logs and
the texts of errors.
"""

from __future__ import annotations

import re

_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # controls: C0, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what changes the direction
    "\u2028\u2029\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # what cannot be seen
    "\ud800-\udfff]"  # halves of characters
)

_BEYOND_ASCII = re.compile("[^\x00-\x7f]")

# The lengths keep a text that was made for it from taking long.
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
"""Parameters of a URL whose values are no secrets. All others are masked: a name can be spelt in many ways."""


def storable(text: str) -> str:
    """A text with U+FFFD or ? for what cannot be stored: U+0000, and halves of surrogate pairs."""
    return text.encode(errors="replace").decode().replace("\x00", "\ufffd")


def visible(text: str) -> str:
    """The text in one line, with escapes for what cannot be seen: `\\x1b`, `\\n`, `\\u202e`."""
    return _HIDDEN.sub(_escape, text)


def visible_lines(text: str) -> str:
    """As `visible`, with its lines left as they are."""
    return "\n".join(map(visible, text.split("\n")))


def visible_json(text: str) -> str:
    """A JSON text in which what cannot be seen is escaped: the same value to whoever reads it.

    Args:
        text: as a JSON writer made it; it has white space between values at most.
    """
    if text.isascii() and text.isprintable():
        return text
    return _HIDDEN.sub(lambda found: found[0] if found[0] == "\n" else _escape_json(found[0]), text)


def ascii_json(text: str) -> str:
    """A JSON text in ASCII: the same value to whoever reads it."""
    return text if text.isascii() else _BEYOND_ASCII.sub(lambda found: _escape_json(found[0]), text)


def masked(text: str) -> str:
    """The text without the passwords of the URLs in it, nor the values of their queries."""
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
