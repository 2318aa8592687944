"""For receivers of webhooks: verifies the signature and reads the event. `pip install dspex[webhooks]`.

>>> event = verify(body, headers, os.environ["ORDERS_WEBHOOK_SECRET"].split())
>>> event.id       # the same in every attempt and copy: answer a known id with 200, and do nothing >>> event.data     #
ExecutionCompleted, ExecutionFailed, ExecutionCancelled, or ExecutionEnded: a reference

Signatures follow Standard Webhooks 1.0.0; its library verifies them in constant time:
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dspex.contract.envelope import MAX_MESSAGE_BYTES, Envelope, decode_event
from dspex.errors import InvalidWebhook, MessageTooLarge, SettingsError

try:
    from standardwebhooks import Webhook, WebhookVerificationError
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("dspex.webhooks needs one more package: pip install dspex[webhooks]") from error

PREFIX: Final = "whsec_"
NEW_BYTES: Final = 32
_MIN_BYTES, _MAX_BYTES = 24, 64


def verify(
    body: bytes, headers: Mapping[str, str], secrets: str | Sequence[str], max_bytes: int = MAX_MESSAGE_BYTES
) -> Envelope[Any]:
    """Check the signature of a webhook, and read it.

    Args:
        body: the raw bytes of the request, not a framework's parsed form.
        headers: of the request; their case does not matter. Needs `webhook-id`, `webhook-timestamp` (within 5 minutes
            of now), and `webhook-signature`.
        secrets: `whsec_…`; during a rotation, the new one and the old one.

    Raises:
        InvalidWebhook: it is not from DSPex, or is too old. Answer with 401.
        MalformedMessage, UnknownMessageType, InvalidMessage, MessageTooLarge: it is from DSPex, but this version cannot
            read it.
        SettingsError: a secret is malformed.
    """
    tried = [check_secret(secret) for secret in ([secrets] if isinstance(secrets, str) else secrets)]
    if not tried:
        raise SettingsError("secrets: there is none; give the one that signs the webhooks")
    if len(body) > max_bytes:
        raise MessageTooLarge(f"the webhook has {len(body)} bytes; at most {max_bytes} are allowed")
    _check(body, headers, tried)
    return decode_event(body, max_bytes)


def new_secret() -> str:
    """A new secret to sign with: `whsec_` and 32 random bytes in base64."""
    return PREFIX + base64.b64encode(os.urandom(NEW_BYTES)).decode()


def check_secret(secret: str) -> str:
    """The secret, if it can be one: `whsec_` and the base64 of 24 to 64 bytes.

    Raises:
        SettingsError: it is not; the text does not quote it.
    """
    encoded = secret.removeprefix(PREFIX)
    try:
        size = len(base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True))
    except ValueError:
        size = 0
    if encoded == secret or not _MIN_BYTES <= size <= _MAX_BYTES:
        raise SettingsError("a webhook's secret must be 'whsec_' and the base64 of 24 to 64 bytes")
    return secret


def _check(body: bytes, headers: Mapping[str, str], secrets: Sequence[str]) -> None:
    reason = ""
    for secret in secrets:
        try:
            Webhook(secret).verify(body, dict(headers), json_parse=False)
        except WebhookVerificationError as error:
            reason = str(error)
        except (ValueError, TypeError, AttributeError):  # errors of the library: no comma, no base64, no text
            reason = "malformed signature, or a body that is not text"
        else:
            return
    raise InvalidWebhook(f"webhook-signature: {reason[:1].lower()}{reason[1:]}")
