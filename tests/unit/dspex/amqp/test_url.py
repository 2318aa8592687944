"""The URL of the broker: what is wrong is named, and nothing of the password."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import pytest

from dspex.amqp.publisher import AmqpPublisher
from dspex.amqp.url import amqp_parameters, url_problem
from dspex.client.remote import RemoteClient
from dspex.errors import SettingsError
from dspex.producer import Producer
from workers.settings import Settings

CONNECTORS: list[Callable[[str], object]] = [
    AmqpPublisher,
    lambda url: RemoteClient(url, source="/tests"),
    lambda url: Producer.connect(url, "/tests"),
]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("amqp://user:ses/ame@host/", "percent-encoded"),
        ("amqp://user:ses#ame@host:5672/", "percent-encoded"),
        ("amqp://user:pa?sesame=1@host:5672/", "percent-encoded"),
        ("amqp://user:p@?sesame=1@host:5672/", "percent-encoded"),
        ("http://user:sesame@host/", "percent-encoded"),
        ("host", "percent-encoded"),
        ("amqp://user:sesame@h:99999/", "percent-encoded"),
        (
            "amqp://user:sesame@host/?hartbeat=1",
            "unknown parameter, 'hartbeat': known are blocked_connection_timeout, channel_max",
        ),
        ("amqp://user:sesame@host/?Sesame!=1", "unknown parameter, one: known"),
        ("amqp://user:sesame@host/?heartbeat=sesame", "invalid value of the parameter 'heartbeat'"),
        ("amqp://user:sesame@host/?locale=de&frame_max=sesame", "value of the parameter 'frame_max'"),
        ("amqp://user:sesame@host/?ssl_options=sesame(", "value of the parameter 'ssl_options'"),
        ("amqp://user:sesame@host/?ssl_options={'cafile': '/no/sesame'}", "value of the parameter 'ssl_options'"),
    ],
)
def test_a_url_that_cannot_be_read(url: str, said: str) -> None:
    for connect in CONNECTORS:
        with pytest.raises(SettingsError, match="the URL of the broker") as caught:
            connect(url)
        assert said in str(caught.value)
        assert "ses" not in str(caught.value).lower()
    if url.startswith("amqp"):
        with pytest.raises(ValueError, match="broker_url") as refused:
            Settings(broker_url=url)
        assert said in str(refused.value)


def test_every_known_parameter_is_taken() -> None:
    query = "blocked_connection_timeout=5&channel_max=9&client_properties={'a': 1}&connection_attempts=2&frame_max=9999"
    query += "&heartbeat=60&locale=de&retry_delay=1&socket_timeout=3&ssl_options={'capath': '/'}&stack_timeout=9"
    query += "&tcp_options={}"
    assert url_problem(f"amqps://user:pass@host/?{query}") is None
    named = amqp_parameters(f"amqps://user:pass@host/?{query}", "dspex client /orders")
    assert named.client_properties == {"a": 1, "connection_name": "dspex client /orders"}
    own = amqp_parameters("amqp://host/?client_properties={'connection_name': 'mine'}", "dspex")
    assert own.client_properties == {"connection_name": "mine"}


def test_a_context_is_for_amqps() -> None:
    context = ssl.create_default_context()
    options = amqp_parameters("amqps://rabbit.example/", "dspex", context).ssl_options
    assert options is not None
    assert (options.context, options.server_hostname) == (context, "rabbit.example")
    with pytest.raises(SettingsError, match=r"ssl_context: .*amqps://"):
        amqp_parameters("amqp://rabbit.example/", "dspex", context)
