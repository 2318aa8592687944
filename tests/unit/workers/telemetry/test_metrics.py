"""What is counted, under which names, and how it is served."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dspex import ErrorCode, ExecutionStatus
from dspex.contract.options import Lane
from dspex.errors import SettingsError
from workers.telemetry.metrics import Metrics, require_free

PATIENCE = 30.0


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    metrics = Metrics()
    yield metrics
    metrics.close()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_each_thing_that_happens_has_its_counter(metrics: Metrics) -> None:
    metrics.execution_ended(ExecutionStatus.COMPLETED)
    metrics.execution_ended(ExecutionStatus.FAILED, "timeout")
    metrics.execution_ended(ExecutionStatus.CANCELLED, "cancelled")
    metrics.stale_write()
    metrics.stale_write(2)
    metrics.retry("rate_limited")
    metrics.execution_rescued(4)
    metrics.message_rejected("malformed_message")
    metrics.event_sent(5)
    metrics.redelivery()
    metrics.accepted(running=True)
    metrics.accepted(running=False)
    metrics.accepted(running=False)
    metrics.chosen(7)
    assert value(metrics, "dspex_executions_total", status="completed", error_code="") == 1
    assert value(metrics, "dspex_executions_total", status="failed", error_code="timeout") == 1
    assert value(metrics, "dspex_executions_total", status="cancelled", error_code="cancelled") == 1
    assert value(metrics, "dspex_stale_writes_total") == 3
    assert value(metrics, "dspex_retries_total", error_code="rate_limited") == 1
    assert value(metrics, "dspex_rescued_executions_total") == 4
    assert value(metrics, "dspex_rejected_messages_total", error_code="malformed_message") == 1
    assert value(metrics, "dspex_events_sent_total") == 5
    assert value(metrics, "dspex_redeliveries_total") == 1
    assert value(metrics, "dspex_executions_accepted_total", state="running") == 1
    assert value(metrics, "dspex_executions_accepted_total", state="pending") == 2
    assert value(metrics, "dspex_executions_chosen_total") == 7


def test_what_waits_is_shown_by_lane(metrics: Metrics) -> None:
    metrics.backlog(Lane.BULK, 1_000_000, 60.5)
    metrics.backlog(Lane.BULK, 900_000, 50.5)
    assert value(metrics, "dspex_waiting_executions", lane="bulk") == 900_000
    assert value(metrics, "dspex_oldest_waiting_seconds", lane="bulk") == 50.5
    assert value(metrics, "dspex_waiting_executions", lane="high") == 0


def test_what_has_not_happened_is_zero(metrics: Metrics) -> None:
    assert value(metrics, "dspex_stale_writes_total") == 0
    assert value(metrics, "dspex_executions_accepted_total", state="pending") == 0
    assert value(metrics, "dspex_executions_total", status="completed", error_code="") == 0
    for code in ErrorCode:
        assert value(metrics, "dspex_executions_total", status="failed", error_code=code) == 0
        assert value(metrics, "dspex_retries_total", error_code=code) == 0


def test_labels_are_of_closed_sets(metrics: Metrics) -> None:
    for number in range(100):
        metrics.execution_ended(ExecutionStatus.FAILED, f"code {number}")
        metrics.retry(f"code {number}")
        metrics.message_rejected(f"code {number}")
    assert value(metrics, "dspex_executions_total", status="failed", error_code="other") == 100
    assert value(metrics, "dspex_retries_total", error_code="other") == 100
    assert value(metrics, "dspex_rejected_messages_total", error_code="other") == 100
    series = [sample for metric in metrics.registry.collect() for sample in metric.samples]
    assert len(series) < 200


def test_applications_share_nothing(metrics: Metrics) -> None:
    other = Metrics()
    other.stale_write()
    assert value(metrics, "dspex_stale_writes_total") == 0


def refused(metrics: Metrics, address: str) -> list[str]:
    """What it is told who wants to serve there, or asks whether it could be."""
    with pytest.raises(SettingsError) as served:
        metrics.serve(address)
    with pytest.raises(SettingsError) as asked:
        require_free([address])
    return [served.value.message, asked.value.message]


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_they_are_served_until_closed(metrics: Metrics) -> None:
    address = free_address()
    metrics.serve(address)
    metrics.redelivery()
    with urlopen(f"http://{address}/metrics", timeout=PATIENCE) as response:
        families = {family.name: family for family in text_string_to_metric_families(response.read().decode())}
    assert families["dspex_redeliveries"].samples[0].value == 1
    assert families["dspex_redeliveries"].type == "counter"
    assert families["process_resident_memory_bytes"].samples[0].value > 0
    (thread,) = metrics.threads
    assert (thread.name, thread.is_alive()) == ("metrics", True)
    metrics.close()
    thread.join(PATIENCE)
    require_free([address])


def test_an_address_that_is_taken_is_one_line(metrics: Metrics) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for line in refused(metrics, address):
            assert line.startswith(f"DSPEX_METRICS_ADDRESS: cannot listen on {address} (")
            assert "in use" in line


@pytest.mark.parametrize("address", ["127.0.0.1:65536", "192.0.2.1:9464"])
def test_an_address_that_cannot_be(metrics: Metrics, address: str) -> None:
    for line in refused(metrics, address):
        assert line.startswith(f"DSPEX_METRICS_ADDRESS: cannot listen on {address} (")


def test_a_module_is_told_with_its_code(metrics: Metrics) -> None:
    metrics.module("rag", "acme-rag 1.2", "abc")
    labels = {"name": "rag", "distribution": "acme-rag 1.2", "digest": "abc"}
    assert metrics.registry.get_sample_value("dspex_module_info", labels) == 1
