"""Text from outside is text: escaped where it cannot be seen, and without the passwords of URLs."""

from __future__ import annotations

import io
import json
import logging
import sys
import time
import unicodedata

import pytest

from dspex.errors import NotFound, RequestFailed, SettingsError
from dspex.text import masked, visible, visible_json, visible_lines
from workers.settings import Settings
from workers.telemetry.logs import MAX_LENGTH, LineFormatter

HOSTILE = (
    "[/foo]\x1b[31m\x1b]0;title\x07\x9b2J\x7f"
    "\n2026-01-01 00:00:00,000 WARNING dspex.audit: denied\r\u202eabc\u2066\u2028"
)


def harmless(text: str) -> bool:
    """Whether a text moves no cursor, adds no line and turns nothing around."""
    return not any(
        unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") or unicodedata.bidirectional(c) in BIDI for c in text
    )


BIDI = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def test_what_cannot_be_seen_is_escaped() -> None:
    assert visible("a\x1b[0m\n\t\x9b\u202eb\ud800") == r"a\x1b[0m\n\t\x9b\u202eb\ud800"
    assert visible("größer, 日本語, שלום, 👩‍👩‍👧, می‌خواهم") == "größer, 日本語, שלום, 👩‍👩‍👧, می‌خواهم"
    assert visible_lines("a\nb\x85c") == "a\nb\\x85c"
    for code in range(0x110000):
        if code != 0x61C and (category := unicodedata.category(chr(code))) in ("Cc", "Zl", "Zp", "Cs"):
            assert visible(chr(code)) != chr(code), category


def test_json_stays_the_same_value() -> None:
    value = {HOSTILE: [HOSTILE, "\U000e0041", "ü"], "n": 1.5}
    for text in (json.dumps(value, ensure_ascii=False), json.dumps(value, ensure_ascii=False, indent=2)):
        shown = visible_json(text)
        assert json.loads(shown) == value
        assert harmless(shown.replace("\n", ""))
        assert "ü" in shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:sesame@host/db?password=sesame&sslmode=require", "postgresql://u:***@host/db?password=***&sslmode=require"),
        ("postgresql://host/db?p%61ssword=sesame", "postgresql://host/db?p%61ssword=***"),
        ("postgresql+psycopg://host/db?SSLPassword=sesame", "postgresql+psycopg://host/db?SSLPassword=***"),
        ("amqp://u:ses@me@host:5672/%2F?x=sesame", "amqp://u:***@host:5672/%2F?x=***"),
        ("redis://:sesame@host/0?password=sesame", "redis://:***@host/0?password=***"),
        ("unix:///run/redis.sock?password=sesame", "unix:///run/redis.sock?password=***"),
        ("https://host/hook?token=sesame#x", "https://host/hook?token=***#x"),
        ("host=h user=u password='ses ame'", "host=h user=u password=***"),
        ("use postgresql://user:password@host/name", "use postgresql://user:password@host/name"),
        ("a = b, see https://host:8443/path", "a = b, see https://host:8443/path"),
    ],
)  # fmt: skip
def test_no_password_of_a_url_is_shown(url: str, shown: str) -> None:
    assert masked(url) == shown
    assert masked(f"at {url} it said no") == f"at {shown} it said no" or "'" in url
    assert str(NotFound(url)) == SettingsError(url).message == RequestFailed("x", url).message == shown


@pytest.mark.parametrize(
    "text", ["a." * 50_000, "a:/" * 30_000, "://a:" * 20_000, "password='" * 10_000, "://" + ":" * 100_000]
)
def test_no_text_takes_long(text: str) -> None:
    began = time.process_time()
    masked(text + "=://")
    assert time.process_time() - began < 5


def test_an_error_is_one_line() -> None:
    error = NotFound(f"there is no program '{HOSTILE}'")
    assert harmless(str(error))
    assert harmless(error.message)
    assert SettingsError("A: wrong\nB: \x1b[0m").message == "A: wrong\nB: \\x1b[0m"


def _logged(**options: object) -> list[str]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter())
    log = logging.Logger("dspex.test")  # noqa: LOG001 - of this test alone
    log.addHandler(handler)
    log.error("field %s of %s", HOSTILE, "amqp://u:sesame@host/?x=sesame", **options)  # type: ignore[arg-type]
    log.error("%s", "x" * MAX_LENGTH * 2)
    return stream.getvalue().split("\n")


def test_a_record_is_a_line_of_the_log() -> None:
    lines = _logged()
    assert len(lines) == 3
    assert all(map(harmless, lines))
    assert "sesame" not in lines[0]
    assert len(lines[1]) < MAX_LENGTH + 100


def test_a_traceback_begins_no_line_of_the_log() -> None:
    try:
        raise ValueError(HOSTILE + " postgresql://host/db?password=sesame")
    except ValueError:
        lines = _logged(exc_info=sys.exc_info(), stack_info=True)
    assert all(map(harmless, lines))
    assert [line[:3] for line in lines if line and not line.startswith("    ")] == [lines[0][:3]] * 2
    assert not any("sesame" in line for line in lines)


def test_settings_show_no_password() -> None:
    settings = Settings(
        database_url="postgresql://u:sesame@host/db?password=sesame",
        broker_url="amqp://u:sesame@host:5672/",
        redis_url="redis://:sesame@host/0",
    )
    assert "sesame" not in f"{settings!r} {settings} {[settings]}"
    assert settings.redis_url == "redis://:sesame@host/0"
