"""Secrets of webhooks: by name, each tenant its own, what signs and what is sent never the same."""

from __future__ import annotations

import pytest

from dspex.errors import Denied, SettingsError
from workers.webhooks.secrets import WebhookSecrets

VALUES = {"A_WEBHOOK_SECRET": "whsec_new whsec_old", "A_WEBHOOK_TOKEN": "Bearer abc", "B_WEBHOOK_TOKEN": "theirs"}
GRANTED = {"acme": {"A_WEBHOOK_SECRET", "A_WEBHOOK_TOKEN", "C_WEBHOOK_TOKEN"}, "other": {"B_WEBHOOK_TOKEN"}}
URL = "https://hooks.acme.example:8443/dspex"


def test_a_secret_that_is_being_changed_is_two() -> None:
    assert WebhookSecrets(VALUES).signing("default", "A_WEBHOOK_SECRET", URL) == ("whsec_new", "whsec_old")


def test_headers_get_their_values() -> None:
    secrets = WebhookSecrets(VALUES, GRANTED)
    assert secrets.headers("acme", {"Authorization": "A_WEBHOOK_TOKEN"}, URL) == {"Authorization": "Bearer abc"}


def test_a_tenant_has_no_secret_of_another() -> None:
    secrets = WebhookSecrets(VALUES, GRANTED)
    for tenant in ("acme", "unknown"):
        with pytest.raises(Denied, match=r"may not use 'B_WEBHOOK_TOKEN'; .*DSPEX_WEBHOOK_SECRETS") as caught:
            secrets.headers(tenant, {"X-Key": "B_WEBHOOK_TOKEN"}, URL)
        assert "theirs" not in str(caught.value)


@pytest.mark.parametrize("granted", [None, GRANTED])
def test_what_signs_is_not_sent_and_what_is_sent_does_not_sign(granted: dict[str, set[str]] | None) -> None:
    secrets = WebhookSecrets(VALUES, granted)
    with pytest.raises(Denied, match="'A_WEBHOOK_SECRET' signs, and is never sent"):
        secrets.headers("acme", {"X-Loot": "A_WEBHOOK_SECRET"}, URL)
    with pytest.raises(Denied, match="'A_WEBHOOK_TOKEN' is one that is sent"):
        secrets.signing("acme", "A_WEBHOOK_TOKEN", URL)


@pytest.mark.parametrize(
    ("hosts", "allowed"),
    [
        (["hooks.acme.example"], True),
        (["other.example", "hooks.acme.example:8443"], True),
        (["hooks.acme.example:443"], False),
        (["acme.example"], False),
        (["x.hooks.acme.example"], False),
        ([], False),
    ],
)
def test_a_name_may_be_for_some_hosts_alone(hosts: list[str], allowed: bool) -> None:
    secrets = WebhookSecrets(VALUES, GRANTED, {"A_WEBHOOK_SECRET": hosts, "A_WEBHOOK_TOKEN": hosts})
    if allowed:
        assert secrets.signing("acme", "A_WEBHOOK_SECRET", URL)
        assert secrets.headers("acme", {"X-Key": "A_WEBHOOK_TOKEN"}, URL)
        return
    with pytest.raises(Denied, match=r"'A_WEBHOOK_SECRET' is not for this host; .*DSPEX_WEBHOOK_SECRET_HOSTS"):
        secrets.signing("acme", "A_WEBHOOK_SECRET", URL)
    with pytest.raises(Denied, match="'A_WEBHOOK_TOKEN' is not for this host"):
        secrets.headers("acme", {"X-Key": "A_WEBHOOK_TOKEN"}, URL)


def test_a_secret_that_the_worker_does_not_have_is_named() -> None:
    with pytest.raises(SettingsError, match="has no 'C_WEBHOOK_TOKEN'"):
        WebhookSecrets(VALUES, GRANTED).headers("acme", {"X-Key": "C_WEBHOOK_TOKEN"}, URL)
