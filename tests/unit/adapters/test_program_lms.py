"""The LMs of programs, as they come in and as they are run: nothing that a tenant was not given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from adapters.lm import LMAlias, LMCatalog
from adapters.port import AdapterError, ProgramSpec
from adapters.registry import AdapterRegistry
from dspex import LM, Configuration, ErrorCode, Signature, uuid7
from dspex.errors import DspexError
from store.programs import Program
from tests.unit.system import System
from workers.application.program_cache import ProgramCache
from workers.local import LocalClient

LMS = {
    "house": LMAlias("openai/llama", "http://127.0.0.1:9/v1", "HOUSE_API_KEY", ("default",)),
    "theirs": LMAlias("openai/llama", "http://127.0.0.1:9/v1", "HOUSE_API_KEY", ("acme",)),
}
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"model": "oobabooga/http://127.0.0.1:9/x"}, "permanent", "lm.model: 'oobabooga' is not one of openai"),
    ({"model": "openai/../x"}, "permanent", "lm.model: what follows 'openai/'"),
    ({"model": "theirs"}, "permanent", "lm.model: 'theirs' is neither"),
    ({"model": "house", "secret": "VAULT_TOKEN"}, "auth", "lm.secret: the alias 'house' has its own"),
    ({"model": "openai/x", "secret": "VAULT_TOKEN"}, "auth", "lm.secret: 'VAULT_TOKEN' is not for openai"),
    ({"model": "openai/x"}, "auth", "lm.secret: 'OPENAI_API_KEY' was not given to 'default'"),
]


@pytest.fixture
def client(start: Callable[..., System]) -> LocalClient:
    system = start(tenancy=True, lms=LMS, lm_secrets={"default": ("TEAM_OPENAI_API_KEY",)})
    return LocalClient(system.app)


def create(client: LocalClient, adapter_type: str, configuration: dict[str, Any]) -> Any:
    signature = client.create_signature("question -> answer")
    return client.create_program(
        "qa",
        signature.signature_id,
        adapter_type=adapter_type,
        configuration=Configuration.model_validate(configuration),
    )


@pytest.mark.parametrize(("lm", "code", "text"), REFUSED)
def test_a_program_with_an_lm_that_may_not_be_does_not_come_in(
    client: LocalClient, lm: dict[str, Any], code: str, text: str
) -> None:
    fallback = [{"on": ["timeout"], "adapter_type": "native", "lm": lm}]
    for adapter, configuration, where in (
        ("native", {"lm": lm}, "configuration."),
        ("python_port", {"lm": lm}, "configuration."),
        ("mock", {"lm": lm, "fallbacks": fallback}, "configuration.fallbacks.0."),
        ("native", {"lm": {"model": "house"}, "fallbacks": fallback}, "configuration.fallbacks.0."),
        (
            "mock",
            {"lm": lm, "fallbacks": [{"on": ["timeout"], "adapter_type": "native"}]},
            "configuration.fallbacks.0.",
        ),
    ):
        with pytest.raises(DspexError) as caught:
            create(client, adapter, configuration)
        assert caught.value.code == code
        assert caught.value.message.startswith(f"{where}{text}")
    assert client.list_programs().items == ()


def test_what_was_given_comes_in_and_is_not_changed_into_what_was_not(client: LocalClient) -> None:
    for adapter, lm in (
        ("native", {"model": "house"}),
        ("native", {"model": "openai/x", "secret": "TEAM_OPENAI_API_KEY"}),
        ("mock", {"model": "anything/at/all"}),  # it calls none
    ):
        create(client, adapter, {"lm": lm})
    program = create(client, "native", {"lm": {"model": "house"}})
    with pytest.raises(DspexError, match=r"^configuration\.lm\.model: 'theirs' is neither"):
        client.update_program(program.program_id, Configuration(lm=LM(model="theirs")))
    kept = client.get_program(program.program_id).configuration.lm
    assert kept is not None
    assert kept.model == "house"


def test_what_was_built_for_one_tenant_is_not_run_for_another() -> None:
    catalog = LMCatalog(LMS, {"HOUSE_API_KEY": "sk-house"}.get, {})
    spec = ProgramSpec("native", Signature.parse("question -> answer"), Configuration(lm=LM(model="theirs")), "acme")

    def find(_: UUID, tenant: str) -> Program:
        columns: dict[str, Any] = dict.fromkeys(Program.__dataclass_fields__)
        columns.update(adapter_type="native", signature=spec.signature, configuration=spec.configuration)
        columns.update(tenant=tenant, backend_id=spec.backend_id)
        return Program(**columns)

    adapters = AdapterRegistry(catalog)
    cache = ProgramCache(find, adapters, catalog)
    try:
        built = cache.build(spec)
        assert cache.load(uuid7(), spec.backend_id, "acme", lambda: None) is built
        with pytest.raises(AdapterError, match="'theirs' is neither") as caught:
            cache.load(uuid7(), spec.backend_id, "default", lambda: None)
        assert caught.value.code is ErrorCode.PERMANENT
    finally:
        adapters.close()
