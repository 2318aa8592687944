"""Callbacks: what a message may say about where a result goes, and the one way in which a URL is read."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pydantic
import pytest

from dspex import ErrorDetail
from dspex.contract.callback import Callback, Target, parse_url
from dspex.contract.events import ExecutionCancelled, ExecutionCompleted, ExecutionFailed
from dspex.model import problems

GIVEN: dict[str, Any] = {"url": "https://receiver.example.com/dspex?x=1", "secret": "ORDERS_WEBHOOK_SECRET"}


def refusal(**given: Any) -> str:
    with pytest.raises(pydantic.ValidationError) as caught:
        Callback.model_validate(GIVEN | given)
    return "; ".join(map(str, problems(caught.value)))


def test_a_callback_survives_the_way_through_json() -> None:
    callback = Callback.model_validate(
        GIVEN | {"events": ["failed"], "headers": {"Authorization": "ORDERS_WEBHOOK_TOKEN"}, "thin": True}
    )
    assert Callback.model_validate_json(callback.model_dump_json()) == callback


def test_it_wants_the_events_that_it_lists_and_all_without_a_list() -> None:
    ids: dict[str, Any] = {"execution_id": uuid4(), "program_id": uuid4(), "attempt": 1, "duration_ms": 1}
    completed = ExecutionCompleted(outputs={}, **ids)
    failed = ExecutionFailed(error=ErrorDetail(code="auth", message="no"), **ids)
    cancelled = ExecutionCancelled(**ids)
    everything = Callback.model_validate(GIVEN)
    some = Callback.model_validate(GIVEN | {"events": ["failed", "cancelled"]})
    assert everything.thin is False
    assert [everything.wants(event) for event in (completed, failed, cancelled)] == [True, True, True]
    assert [some.wants(event) for event in (completed, failed, cancelled)] == [False, True, True]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"url": "https://user:pa55@receiver.example.com/"}, "url: has credentials in it"),
        ({"url": "receiver.example.com"}, "url: is not a URL of the form https://host/path"),
        ({"url": "https://r.example.com/" + "a" * 2048}, "url: has 2070 characters; at most 2048"),
        ({"secret": "OPENAI_API_KEY"}, "secret: string should match pattern"),
        ({"secret": "whsec_c2VjcmV0"}, "secret: string should match pattern"),
        ({"headers": {"X-Key": "DSPEX_DATABASE_URL"}}, "headers.X-Key: string should match pattern"),
        ({"headers": {"X Key": "A_WEBHOOK_TOKEN"}}, "string should match pattern"),
        ({"headers": {"X-Key\r\nX-Other": "A_WEBHOOK_TOKEN"}}, "string should match pattern"),
        ({"headers": {"X-Key\n": "A_WEBHOOK_TOKEN"}}, "string should match pattern"),
        ({"headers": {"X-A": "A_WEBHOOK_TOKEN", "x-a": "B_WEBHOOK_TOKEN"}}, "headers: one is listed twice"),
        ({"headers": {f"X-{n}": "A_WEBHOOK_TOKEN" for n in range(9)}}, "headers: dictionary should have at most 8"),
        ({"events": []}, "events: tuple should have at least 1 item"),
        ({"events": ["failed", "failed"]}, "events: one is listed twice"),
        ({"events": ["started"]}, "events.0: input should be 'completed', 'failed' or 'cancelled'"),
        ({"proxy": "http://proxy"}, "proxy: is not a known field"),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_not_quoted(given: dict[str, Any], said: str) -> None:
    refused = refusal(**given)
    assert said in refused
    assert "pa55" not in refused
    assert "c2VjcmV0" not in refused


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "content-length",
        "Content-Type",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "TE",
        "Trailer",
        "Upgrade",
        "Expect",
        "User-Agent",
        "Webhook-Id",
        "webhook-signature",
        "WEBHOOK-TIMESTAMP",
        "Proxy-Authorization",
    ],
)
def test_headers_of_ours_and_of_the_connection_are_taken(name: str) -> None:
    assert f"the header '{name}' is set by DSPex" in refusal(headers={name: "A_WEBHOOK_TOKEN"})


@pytest.mark.parametrize(
    ("url", "target", "authority"),
    [
        ("https://R.Example.com", Target("https", "r.example.com", 443, "/"), "r.example.com"),
        ("HTTPS://r.example.com:443/A?b=c", Target("https", "r.example.com", 443, "/A?b=c"), "r.example.com"),
        ("https://r.example.com?b", Target("https", "r.example.com", 443, "/?b"), "r.example.com"),
        ("http://localhost:8080/x", Target("http", "localhost", 8080, "/x"), "localhost:8080"),
        ("https://xn--bcher-kva.example/", Target("https", "xn--bcher-kva.example", 443, "/"), "xn--bcher-kva.example"),
        ("https://192.0.2.1:8443/", Target("https", "192.0.2.1", 8443, "/"), "192.0.2.1:8443"),
        ("https://[2001:DB8:0::1]/", Target("https", "2001:db8::1", 443, "/"), "[2001:db8::1]"),
        ("https://[::1]:8443/", Target("https", "::1", 8443, "/"), "[::1]:8443"),
    ],
)
def test_a_url_is_read_in_one_way(url: str, target: Target, authority: str) -> None:
    assert parse_url(url) == target
    assert parse_url(url).authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://",
        "https:///path",
        "//r.example.com/",
        "ftp://r.example.com/",
        "file:///etc/passwd",
        "https://r.example.com:0/",
        "https://r.example.com:65536/",
        "https://r.example.com:443:80/",
        "https://r.example.com:/",
        "https://r.example.com/#fragment",
        "https://r.example.com\\@127.0.0.1/",
        "https://127.0.0.1#@r.example.com/",
        "https://r.example.com@127.0.0.1/",
        "https://:@127.0.0.1/",
        "https://r.example.com/a b",
        "https://r.example.com/\r\nHost: 127.0.0.1",
        "https://r.example.com/\n",
        " https://r.example.com/",
        "https://r.example.com./",
        "https://.example.com/",
        "https://r..example.com/",
        "https://-r.example.com/",
        f"https://{'a' * 64}.example.com/",
        f"https://{'.'.join(['a' * 60] * 5)}/",
        "https://127.1/",
        "https://0177.0.0.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.0.0.1/",
        "https://1.2.3.0x4/",
        "https://r.example.0x/",
        "https://127.0.0.1.5/",
        "https://[::1%25lo]/",
        "https://[::1",
        "https://[127.0.0.1]/",
        "https://[v1.fe80::a]/",
        "https://%31%32%37.0.0.1/",
        "https://\uff11\uff12\uff17.0.0.1/",
        "https://\u2460\u2461\u2466.0.0.1/",
        "https://b\u00fccher.example/",
        "https://127\u30020\u30020\u30021/",
    ],
)
def test_a_url_that_could_be_read_in_two_ways_is_none(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(has|is not|its) "):
        parse_url(url)
