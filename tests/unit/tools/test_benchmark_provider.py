"""The provider of the benchmarks keeps its account by itself: it is what limits are judged by."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from benchmarks.harness.provider import Provider, provider
from tests.waiting import wait_until


def ask(lm: Provider) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(urlsplit(lm.url).netloc, timeout=10)
    connection.request("POST", "/v1/chat/completions", json.dumps({"model": "any"}))
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def test_calls_at_once_are_counted() -> None:
    with provider(0.2) as lm, ThreadPoolExecutor(3) as pool:
        assert [answer.status for answer in pool.map(ask, [lm] * 3)] == [200] * 3
        assert (lm.most, lm.open, len(lm.calls)) == (3, 0, 3)
        assert lm.busy > 0.55
        assert lm.during(lm.calls[0], lm.calls[-1]) == 2


def test_a_call_whose_caller_is_gone_is_open_no_more() -> None:
    with provider(60) as lm:
        connection = http.client.HTTPConnection(urlsplit(lm.url).netloc, timeout=10)
        connection.request("POST", "/v1/chat/completions", json.dumps({"model": "any"}))
        wait_until(lambda: lm.open == 1, "the call came")
        connection.close()
        wait_until(lambda: lm.open == 0, "it is gone")
        assert (lm.most, len(lm.calls)) == (1, 1)


def test_what_is_refused_is_told_when_to_come_again() -> None:
    with provider(0) as lm:
        lm.refusing, lm.retry_after = True, 20
        answer = ask(lm)
        assert (answer.status, answer.getheader("Retry-After")) == (429, "20")
        lm.retry_after = None
        assert ask(lm).getheader("Retry-After") is None
        assert (len(lm.calls), len(lm.refused), lm.most) == (0, 2, 0)
