"""What other distributions offer by entry points, and what happens when they are broken."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapters import plugins
from adapters.mock import MockAdapter
from adapters.port import AdapterError
from adapters.registry import BUILT_IN, AdapterRegistry
from dspex import ErrorCode

Install = Callable[[str, str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution of one module: its name, its entry points, its source."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def distribution(name: str, points: str, source: str) -> None:
        information = tmp_path / f"{name}-1.2.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (information / "entry_points.txt").write_text(textwrap.dedent(points))
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))

    yield distribution
    for name in set(sys.modules) - before:
        del sys.modules[name]


def refusal(adapter_type: str) -> str:
    with pytest.raises(AdapterError) as caught:
        AdapterRegistry().get(adapter_type)
    assert caught.value.code is ErrorCode.PERMANENT
    return caught.value.message


GOOD = """
    from adapters.mock import MockAdapter
    def create_adapter(catalog):
        return MockAdapter()
"""


def test_an_adapter_of_another_distribution_is_found_by_name(install: Install) -> None:
    install("plug_good", "[dspex.adapters]\nplugged = plug_good:create_adapter", GOOD)
    registry = AdapterRegistry()
    assert isinstance(registry.get("plugged"), MockAdapter)
    assert registry.get("plugged") is registry.get("plugged")
    assert registry.made() == {"plugged": registry.get("plugged")}


def test_it_is_imported_when_it_is_asked_for_and_not_before(install: Install) -> None:
    install("plug_lazy", "[dspex.adapters]\nlazy = plug_lazy:create_adapter", "raise RuntimeError('imported')")
    AdapterRegistry().get("mock")
    assert refusal("nothing").endswith(f"is not one of {', '.join([*BUILT_IN, 'lazy'])}")
    assert "plug_lazy" not in sys.modules


def test_a_built_in_adapter_cannot_be_shadowed(install: Install) -> None:
    points = "\n".join(["[dspex.adapters]", *(f"{name} = plug_shadow:create_adapter" for name in BUILT_IN)])
    install("plug_shadow", points, "raise RuntimeError('imported')")
    assert isinstance(AdapterRegistry().get("mock"), MockAdapter)
    assert refusal("nothing").endswith(f"is not one of {', '.join(BUILT_IN)}")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("x = 1", "AttributeError"),
        ("create_adapter = 1", "TypeError"),
        ("def create_adapter(catalog): raise OSError('no disk')", "OSError: no disk"),
        ("def create_adapter(catalog): return object()", "is no adapter: it has no cancel, close, create_program"),
    ],
)
def test_a_broken_adapter_names_its_distribution(install: Install, source: str, reason: str) -> None:
    install("plug_broken", "[dspex.adapters]\nbroken = plug_broken:create_adapter", source)
    message = refusal("broken")
    assert message.startswith("adapter_type: 'broken' of plug_broken 1.2")
    assert reason in message


def test_a_name_that_two_distributions_offer_is_refused(install: Install) -> None:
    for name in ("plug_one", "plug_two"):
        install(name, f"[dspex.adapters]\ntwice = {name}:create_adapter", GOOD)
    assert refusal("twice") == ("adapter_type: 'twice' is offered by plug_one 1.2 and plug_two 1.2: remove all but one")


def test_rewards_and_tools_are_found_by_name(install: Install) -> None:
    points = """
        [dspex.rewards]
        short = plug_code:short
        lost = plug_code:lost
        [dspex.tools]
        look_up = plug_code:look_up
    """
    install("plug_code", points, "def short(inputs, prediction): return 1.0\ndef look_up(q: str) -> str: return q")
    assert plugins.load(plugins.REWARDS, "short", asked_by="parameters.reward")({}, None) == 1.0
    assert plugins.load(plugins.TOOLS, "look_up", asked_by="parameters.tools.0")("x") == "x"
    with pytest.raises(AdapterError) as caught:
        plugins.load(plugins.REWARDS, "look_up", asked_by="parameters.reward")
    expected = "parameters.reward: 'look_up' is not one of dspex.rewards (known: lost, short)"
    assert caught.value.message == expected
    with pytest.raises(AdapterError, match=r"parameters\.reward: 'lost' of plug_code 1\.2 \(plug_code:lost\)"):
        plugins.load(plugins.REWARDS, "lost", asked_by="parameters.reward")
