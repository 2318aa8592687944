"""The guard: what it refuses and says, and what one setting allows."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex.errors import ForbiddenAddress, SettingsError
from tests.forbidden_addresses import ALLOWED_ADDRESSES, FORBIDDEN_ADDRESSES, FORBIDDEN_URLS
from workers.webhooks.addresses import Guard, is_local, is_public, resolve

PUBLIC = "93.184.215.14"


def answering(*addresses: str) -> Guard:
    """A guard whose resolver gives every name these addresses."""
    return Guard(hosts=["receiver.internal:9000", "localhost:8080", "[::1]:8080"], resolver=lambda *_: addresses)


def refusal(guard: Guard, host: str, port: int = 443) -> str:
    with pytest.raises(ForbiddenAddress) as caught:
        guard.addresses(host, port, 1.0)
    assert caught.value.code == "forbidden_address"
    return caught.value.message


def test_the_corpus_is_as_large_as_it_should_be() -> None:
    assert len(set(FORBIDDEN_ADDRESSES)) >= 40
    assert len(set(FORBIDDEN_URLS)) >= 30


@pytest.mark.parametrize("address", FORBIDDEN_ADDRESSES)
def test_a_forbidden_address_is_refused_as_a_host_and_as_an_answer(address: str) -> None:
    assert not is_public(address)
    with pytest.raises(ForbiddenAddress):
        answering(PUBLIC).check(f"https://[{address}]/" if ":" in address else f"https://{address}/")
    refusal(answering(PUBLIC), address)
    refusal(answering(address), "receiver.example")


@pytest.mark.parametrize("address", FORBIDDEN_ADDRESSES)
def test_one_bad_answer_is_enough(address: str) -> None:
    refusal(answering(PUBLIC, address), "receiver.example")
    refusal(answering(address, PUBLIC), "receiver.example")


@pytest.mark.parametrize("address", ALLOWED_ADDRESSES)
def test_the_neighbours_of_what_is_forbidden_are_allowed(address: str) -> None:
    assert answering(address).addresses("receiver.example", 443, 1.0) == (address,)


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_passes_in_the_clothes_of_ipv6(address: IPv4Address) -> None:
    number = int(address)
    for prefix, shift in (("::ffff:0:0", 0), ("::", 0), ("64:ff9b::", 0), ("64:ff9b:1::", 0), ("2002::", 80)):
        assert not is_public(str(IPv6Address(int(IPv6Address(prefix)) | number << shift)))


@given(st.ip_addresses())
def test_no_address_is_both_public_and_local(address: IPv4Address | IPv6Address) -> None:
    assert not (is_public(str(address)) and is_local(str(address)))


@pytest.mark.parametrize("address", ["fe80::1%eth0", "2606:4700::1%eth0", "nonsense", ""])
def test_what_is_no_address_is_not_public(address: str) -> None:
    assert not is_public(address)
    assert not is_local(address)


def test_what_is_refused_is_said_with_the_setting_and_without_the_address(caplog: pytest.LogCaptureFixture) -> None:
    said = refusal(answering("10.1.2.3"), "intranet.example")
    assert "'intranet.example:443' by DSPEX_WEBHOOK_HOSTS" in said
    assert "10.1.2.3" not in said
    assert "10.1.2.3" in caplog.text  # for operators


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "http://receiver.example/",
            "use https; an operator can allow 'receiver.example:80' without it by DSPEX_WEBHOOK_HOSTS",
        ),
        (
            "https://receiver.example:22/",
            "the port 22 is not one of 443; an operator can allow it by DSPEX_WEBHOOK_PORTS",
        ),
        ("https://u:p@receiver.example/", "has credentials in it"),
        ("https://127.0.0.1/", "'127.0.0.1' has an address that webhooks may not go to"),
    ],
)
def test_a_url_is_looked_at_before_anything_is_resolved(url: str, said: str) -> None:
    def resolver(host: str, seconds: float) -> Sequence[str]:
        raise AssertionError(host)

    with pytest.raises(ForbiddenAddress) as caught:
        Guard(resolver=resolver).check(url)
    assert said in caught.value.message


class TestAllowed:
    def test_a_port_of_the_list(self) -> None:
        assert Guard(ports=[443, 8443]).check("https://receiver.example:8443/").port == 8443

    @pytest.mark.parametrize("url", ["http://receiver.internal:9000/a", "https://Receiver.Internal:9000/a"])
    @pytest.mark.parametrize("address", ["10.0.0.7", "127.0.0.1", "fd12::1", "::1", PUBLIC])
    def test_a_named_host_may_be_private_and_without_tls(self, url: str, address: str) -> None:
        guard = answering(address)
        target = guard.check(url)
        assert guard.addresses(target.host, target.port, 1.0) == (address,)

    def test_an_address_can_be_named_too(self) -> None:
        guard = answering()
        assert guard.check("http://[0::1]:8080/").host == "::1"
        assert guard.addresses("::1", 8080, 1.0) == ("::1",)

    @pytest.mark.parametrize("url", ["http://receiver.internal:9001/", "http://receiver.internal/"])
    def test_only_at_its_port(self, url: str) -> None:
        with pytest.raises(ForbiddenAddress):
            answering("10.0.0.7").check(url)
        refusal(answering("10.0.0.7"), "receiver.internal", 9001)

    def test_only_under_its_name(self) -> None:
        refusal(answering("127.0.0.1"), "other.example", 8080)

    @pytest.mark.parametrize(
        "address",
        [
            "169.254.169.254",
            "168.63.129.16",
            "192.0.0.192",
            "100.100.100.200",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fe80::1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "224.0.0.1",
            "0.0.0.0",
            "255.255.255.255",
        ],
    )
    def test_a_metadata_service_is_nobodys_receiver(self, address: str) -> None:
        assert "it never may" in refusal(answering(address), "receiver.internal", 9000)

    @pytest.mark.parametrize(
        "host", ["localhost", "localhost:", "localhost:x", "http://localhost:80", "a b:80", "*:80"]
    )
    def test_a_setting_that_names_no_host_is_refused(self, host: str) -> None:
        with pytest.raises(SettingsError, match="DSPEX_WEBHOOK_HOSTS"):
            Guard(hosts=[host])


class TestResolve:
    def test_it_asks_the_system(self) -> None:
        assert "127.0.0.1" in resolve("localhost", 10.0)

    def test_a_name_that_is_not_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", fail)
        with pytest.raises(OSError, match="not known"):
            resolve("nowhere.example", 10.0)

    def test_a_slow_name_server_holds_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        released = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(60) and [])
        with pytest.raises(TimeoutError):
            resolve("slow.example", 0.05)
        released.set()

    def test_no_answer_is_no_address(self) -> None:
        with pytest.raises(OSError, match="no address"):
            answering().addresses("receiver.example", 443, 1.0)
