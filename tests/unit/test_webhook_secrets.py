"""Secrets of webhooks: by name, each tenant its own."""

from __future__ import annotations

import pytest

from dspex.errors import Denied, SettingsError
from workers.webhooks.secrets import WebhookSecrets

VALUES = {"A_WEBHOOK_SECRET": "whsec_new whsec_old", "A_WEBHOOK_TOKEN": "Bearer abc", "B_WEBHOOK_TOKEN": "theirs"}
GRANTED = {"acme": {"A_WEBHOOK_SECRET", "A_WEBHOOK_TOKEN", "C_WEBHOOK_TOKEN"}, "other": {"B_WEBHOOK_TOKEN"}}


def test_a_secret_that_is_being_changed_is_two() -> None:
    assert WebhookSecrets(VALUES).signing("default", "A_WEBHOOK_SECRET") == ("whsec_new", "whsec_old")


def test_headers_get_their_values() -> None:
    secrets = WebhookSecrets(VALUES, GRANTED)
    assert secrets.headers("acme", {"Authorization": "A_WEBHOOK_TOKEN"}) == {"Authorization": "Bearer abc"}


def test_a_tenant_has_no_secret_of_another() -> None:
    secrets = WebhookSecrets(VALUES, GRANTED)
    for tenant in ("acme", "unknown"):
        with pytest.raises(Denied, match=r"may not use 'B_WEBHOOK_TOKEN'; .*DSPEX_WEBHOOK_SECRETS") as caught:
            secrets.headers(tenant, {"X-Key": "B_WEBHOOK_TOKEN"})
        assert "theirs" not in str(caught.value)


def test_a_secret_that_the_worker_does_not_have_is_named() -> None:
    with pytest.raises(SettingsError, match="has no 'C_WEBHOOK_TOKEN'"):
        WebhookSecrets(VALUES, GRANTED).headers("acme", {"X-Key": "C_WEBHOOK_TOKEN"})
