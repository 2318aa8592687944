"""`dspex.webhooks.verify`: takes what the public library signs, and nothing else."""

from __future__ import annotations

import base64
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from standardwebhooks import Webhook

from dspex import ExecutionCompleted, wrap
from dspex.errors import InvalidWebhook, MessageTooLarge, SettingsError, UnknownMessageType
from dspex.webhooks import check_secret, new_secret, verify

ID = UUID("0190f6a0-0000-7000-8000-000000000000")
EVENT = wrap(
    ExecutionCompleted(execution_id=ID, program_id=ID, outputs={"a": "\N{GRINNING FACE}"}, attempt=1, duration_ms=1),
    source="/dspex",
)
BODY = EVENT.encode()
SECRET, OTHER = new_secret(), new_secret()


def signed(*secrets: str, body: bytes = BODY, at: datetime | None = None) -> dict[str, str]:
    """Headers, by the public library."""
    now = at or datetime.now(UTC)
    return {
        "webhook-id": EVENT.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(EVENT.id, now, body.decode()) for secret in secrets),
    }


def test_what_the_library_signs_is_taken() -> None:
    assert verify(BODY, signed(SECRET), SECRET) == EVENT


def test_names_of_headers_may_have_any_case() -> None:
    headers = {name.title(): value for name, value in signed(SECRET).items()}
    assert verify(BODY, headers, SECRET) == EVENT


@pytest.mark.parametrize("known", [[SECRET], [OTHER], [SECRET, OTHER], [new_secret(), OTHER]])
def test_while_a_secret_is_changed_either_side_may_be_first(known: list[str]) -> None:
    assert verify(BODY, signed(SECRET, OTHER), known) == EVENT
    assert verify(BODY, signed(OTHER), [SECRET, OTHER]) == EVENT


def test_a_wrong_secret_is_refused() -> None:
    with pytest.raises(InvalidWebhook, match="no matching signature found") as caught:
        verify(BODY, signed(SECRET), [OTHER, new_secret()])
    assert caught.value.code == "invalid_webhook"


def test_every_flipped_bit_of_the_body_is_seen() -> None:
    headers = signed(SECRET)
    for index in range(len(BODY)):
        changed = bytearray(BODY)
        changed[index] ^= 1 << index % 8
        with pytest.raises(InvalidWebhook):
            verify(bytes(changed), headers, SECRET)


def test_every_flipped_bit_of_the_signature_is_seen() -> None:
    headers = signed(SECRET)
    signature = base64.b64decode(headers["webhook-signature"].removeprefix("v1,"))
    for bit in range(8 * len(signature)):
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InvalidWebhook):
            verify(BODY, headers | {"webhook-signature": "v1," + base64.b64encode(changed).decode()}, SECRET)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp"])
def test_every_flipped_bit_of_what_is_signed_is_seen(name: str) -> None:
    headers = signed(SECRET)
    for index, character in enumerate(headers[name]):
        for bit in range(7):
            changed = headers[name][:index] + chr(ord(character) ^ 1 << bit) + headers[name][index + 1 :]
            with pytest.raises(InvalidWebhook):
                verify(BODY, headers | {name: changed}, SECRET)


@pytest.mark.parametrize("seconds", [-301, 302])
def test_what_is_too_old_or_too_new_is_refused(seconds: int) -> None:
    with pytest.raises(InvalidWebhook, match="timestamp too"):
        verify(BODY, signed(SECRET, at=datetime.now(UTC) + timedelta(seconds=seconds)), SECRET)


@pytest.mark.parametrize("seconds", [-270, 299])
def test_a_clock_may_be_a_little_off(seconds: int) -> None:
    assert verify(BODY, signed(SECRET, at=datetime.now(UTC) + timedelta(seconds=seconds)), SECRET) == EVENT


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_header_that_is_missing_or_empty_is_refused(missing: str) -> None:
    headers = signed(SECRET)
    with pytest.raises(InvalidWebhook, match="missing required headers"):
        verify(BODY, {name: value for name, value in headers.items() if name != missing}, SECRET)
    with pytest.raises(InvalidWebhook, match="missing required headers"):
        verify(BODY, headers | {missing: ""}, SECRET)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("webhook-signature", "v1"),
        ("webhook-signature", "v1,"),
        ("webhook-signature", "v1,a"),
        ("webhook-signature", "v1,abc,def"),
        ("webhook-signature", "v1,\u00e9\u00e9"),
        ("webhook-signature", " "),
        ("webhook-signature", "v2,AAAA v1a,AAAA"),
        ("webhook-signature", "v1," + "A" * 100_000),
        ("webhook-timestamp", "yesterday"),
        ("webhook-timestamp", "nan"),
        ("webhook-timestamp", "1e400"),
        ("webhook-timestamp", "9" * 5000),
        ("webhook-timestamp", "-1"),
    ],
)
def test_headers_that_are_malformed_are_refused_as_the_rest(name: str, value: str) -> None:
    with pytest.raises(InvalidWebhook):
        verify(BODY, signed(SECRET) | {name: value}, SECRET)


def test_a_body_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidWebhook):
        verify(b"\xff\xfe", signed(SECRET), SECRET)


def test_what_is_signed_and_not_of_this_version_says_so() -> None:
    body = b'{"specversion": "1.0", "type": "dspex.execution.exploded.v9"}'
    with pytest.raises(UnknownMessageType):
        verify(body, signed(SECRET, body=body), SECRET)


def test_a_body_beyond_the_cap_is_not_looked_at() -> None:
    with pytest.raises(MessageTooLarge):
        verify(BODY, {}, SECRET, max_bytes=len(BODY) - 1)


class TestSecrets:
    def test_a_new_secret_is_one_and_another_each_time(self) -> None:
        assert check_secret(SECRET) == SECRET != OTHER
        assert len(base64.b64decode(SECRET.removeprefix("whsec_"))) == 32

    @pytest.mark.parametrize("size", [24, 25, 26, 64])
    def test_padding_may_be_left_out(self, size: int) -> None:
        secret = "whsec_" + base64.b64encode(bytes(size)).decode().rstrip("=")
        assert verify(BODY, signed(secret), secret) == EVENT

    @pytest.mark.parametrize(
        "secret",
        ["", "whsec_", SECRET.removeprefix("whsec_"), "whsec_!" + "A" * 43, "whsec_" + "-_" * 22, "whsec_\u00e9"]
        + ["whsec_" + base64.b64encode(bytes(size)).decode() for size in (23, 65)],
        ids=["empty", "nothing", "no prefix", "no base64", "base64url", "no ASCII", "short", "long"],
    )
    def test_what_is_none_is_the_receivers_mistake_and_not_quoted(self, secret: str) -> None:
        with pytest.raises(
            SettingsError, match=r"^a webhook's secret must be 'whsec_' and the base64 of 24 to 64 bytes$"
        ):
            verify(BODY, signed(SECRET), [SECRET, secret])

    def test_without_any_nothing_is_taken(self) -> None:
        with pytest.raises(SettingsError):
            verify(BODY, signed(SECRET), [])


def test_dspex_alone_does_not_need_the_library() -> None:
    script = "import sys; sys.modules['standardwebhooks'] = None; import dspex, dspex.producer, dspex.contract.callback"
    subprocess.run([sys.executable, "-c", script], check=True)
    needed = subprocess.run(
        [sys.executable, "-c", script + "; import dspex.webhooks"], capture_output=True, text=True, check=False
    )
    assert "pip install dspex[webhooks]" in needed.stderr
