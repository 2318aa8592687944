"""Which LM a program may name, whose key goes where, and what each tenant was given."""

from __future__ import annotations

import pytest

from adapters.lm import LMAlias, LMCatalog, ResolvedLM
from adapters.port import AdapterError
from dspex import LM, ErrorCode

HOUSE = "https://llm.internal/v1"
VALUES = {
    "OPENAI_API_KEY": "sk-openai",
    "ANTHROPIC_API_KEY": "sk-anthropic",
    "ACME_OPENAI_API_KEY": "sk-acme",
    "AZURE_OPENAI_API_KEY": "sk-azure",
    "OPENROUTER_API_KEY": "sk-openrouter",
    "HOUSE_API_KEY": "sk-house",
    "VAULT_TOKEN": "vault",
}
ALIASES = {
    "house": LMAlias("openai/llama", HOUSE, "HOUSE_API_KEY", ("acme",)),
    "open": LMAlias("openai/llama", HOUSE, tenants=("acme", "other")),
    "mini": LMAlias("openai/gpt-4o-mini", tenants=("acme",)),
    "nobody": LMAlias("openai/gpt-4o-mini"),
}
ONE = LMCatalog(ALIASES, VALUES.get)
MANY = LMCatalog(ALIASES, VALUES.get, {"acme": ("ACME_OPENAI_API_KEY", "VAULT_TOKEN"), "other": ("OPENAI_API_KEY",)})


def refusal(catalog: LMCatalog, model: str, secret: str | None = None, tenant: str | None = None) -> AdapterError:
    lm = LM.model_construct(model=model, secret=secret)
    with pytest.raises(AdapterError) as checked:
        catalog.check(lm, tenant)
    with pytest.raises(AdapterError) as resolved:
        catalog.resolve(lm, tenant)
    assert (resolved.value.code, resolved.value.message) == (checked.value.code, checked.value.message)
    return resolved.value


@pytest.mark.parametrize(
    ("model", "key"),
    [
        ("openai/gpt-4o-mini", "sk-openai"),
        ("openai/ft:gpt-4o-mini-2024-07-18:acme::abc123", "sk-openai"),
        ("anthropic/claude-sonnet-4-5", "sk-anthropic"),
        ("openrouter/anthropic/claude-3.5-sonnet:beta", "sk-openrouter"),
        ("openrouter/meta-llama/llama-3.3-70b-instruct:free", "sk-openrouter"),
    ],
)
def test_a_provider_is_called_at_its_own_address_with_its_own_key(model: str, key: str) -> None:
    assert ONE.resolve(LM(model=model)) == ResolvedLM(model, None, key)


def test_a_key_of_a_team_is_for_the_provider_in_its_name() -> None:
    lm = LM(model="openai/gpt-4o", secret="ACME_OPENAI_API_KEY")
    assert ONE.resolve(lm).api_key == "sk-acme"
    assert MANY.resolve(lm, "acme").api_key == "sk-acme"


@pytest.mark.parametrize(
    "model",
    [
        "oobabooga/http://127.0.0.1:9/x",
        "openai/http://127.0.0.1:9/x",
        "openai/../x",
        "openai/a..b",
        "openai/a//b",
        "openai//a",
        "openai/a/",
        "openai/a@b",
        "openai/a b",
        "openai/a\nb",
        "openai/a\x00",
        "openai/a?b=c",
        "openai/a#b",
        "openai/a%2e%2e",
        "openai/\u202egpt",
        "openai/" + "x" * 201,
        "openai/",
        "/x",
        "OpenAI/x",
        "openai:x",
        "openai-codex:x/y",
        "claude-code:x/y",
        "gemini/../cachedContents/x",
        "gemini/tuned/x",
        "gemini/x:batchGenerateContent",
        "sagemaker/x",
        "bedrock/anthropic.claude-3-5-sonnet-20240620-v1:0",
        "vertex_ai/gemini-2.5-pro",
        "azure/deployment",
        "mistral/mistral-large",
        "ollama_chat/llama3.2",
        "hosted_vllm/x",
        "huggingface/x",
        "litellm_proxy/x",
        "custom/x",
        "http://127.0.0.1:9/v1",
        "127.0.0.1:9/x",
        "nowhere",
    ],
)
def test_a_message_names_no_address_and_no_provider_but_the_known(model: str) -> None:
    error = refusal(ONE, model)
    assert error.code is ErrorCode.PERMANENT
    assert error.message.startswith("model: ")
    assert refusal(ONE, model, "OPENAI_API_KEY").message.startswith("model: ")


@pytest.mark.parametrize(
    ("model", "secret"),
    [
        ("openai/gpt-4o", "VAULT_TOKEN"),
        ("openai/gpt-4o", "ANTHROPIC_API_KEY"),
        ("openai/gpt-4o", "AZURE_OPENAI_API_KEY"),
        ("openai/gpt-4o", "XOPENAI_API_KEY"),
        ("anthropic/claude-sonnet-4-5", "OPENAI_API_KEY"),
        ("openrouter/openai/gpt-4o", "OPENAI_API_KEY"),
        ("openai/gpt-4o", "HOUSE_API_KEY"),
    ],
)
def test_a_key_goes_to_no_other_provider(model: str, secret: str) -> None:
    error = refusal(ONE, model, secret)
    assert error.code is ErrorCode.AUTH
    assert error.message.startswith(f"secret: '{secret}' is not for ")
    assert refusal(MANY, model, secret, "acme").message == error.message


@pytest.mark.parametrize("secret", ["VAULT_TOKEN", "OPENAI_API_KEY", "HOUSE_API_KEY"])
@pytest.mark.parametrize("alias", ["house", "open", "mini"])
def test_an_alias_has_its_own_secret_and_no_other(alias: str, secret: str) -> None:
    error = refusal(ONE, alias, secret)
    assert error.code is ErrorCode.AUTH
    assert error.message.startswith(f"secret: the alias '{alias}' has its own")
    assert refusal(MANY, alias, secret, "acme").message == error.message


def test_an_alias_is_called_at_its_address_with_its_key() -> None:
    assert ONE.resolve(LM(model="house")) == ResolvedLM("openai/llama", HOUSE, "sk-house")
    assert ONE.resolve(LM(model="open")) == ResolvedLM("openai/llama", HOUSE, None)  # and not with the usual one
    assert ONE.resolve(LM(model="mini")) == ResolvedLM("openai/gpt-4o-mini", None, "sk-openai")


def test_a_tenant_has_the_aliases_that_it_was_given() -> None:
    assert MANY.resolve(LM(model="house"), "acme").api_key == "sk-house"
    assert MANY.resolve(LM(model="mini"), "acme").api_key == "sk-openai"
    for tenant, model in (("other", "house"), ("other", "mini"), ("acme", "nobody"), (None, "house"), ("", "house")):
        error = refusal(MANY, model, tenant=tenant)
        there_is_none = refusal(MANY, "nothing", tenant=tenant)
        assert error.code is ErrorCode.PERMANENT
        assert error.message == there_is_none.message.replace("nothing", model)  # nobody learns that there is one


def test_a_tenant_has_the_secrets_that_it_was_given() -> None:
    assert MANY.resolve(LM(model="openai/gpt-4o"), "other").api_key == "sk-openai"
    for tenant, secret in (("acme", None), ("other", "ACME_OPENAI_API_KEY"), (None, None), ("third", None)):
        error = refusal(MANY, "openai/gpt-4o", secret, tenant)
        assert error.code is ErrorCode.AUTH
        assert "was not given to" in error.message
        assert "DSPEX_LM_SECRETS" in error.message


def test_a_key_may_be_missing_until_it_is_needed() -> None:
    catalog = LMCatalog({"house": LMAlias("openai/llama", HOUSE, "HOUSE_API_KEY")})
    for lm in (LM(model="house"), LM(model="openai/gpt-4o")):
        catalog.check(lm)
        with pytest.raises(AdapterError, match="is not known to the worker") as caught:
            catalog.resolve(lm)
        assert caught.value.code is ErrorCode.AUTH


@pytest.mark.parametrize(
    "model", ["sagemaker/x", "bedrock/x", "vertex_ai/x", "github_copilot/x", "x", "openai/", "oobabooga/http://x"]
)
def test_an_operator_names_no_provider_that_takes_the_keys_of_the_machine(model: str) -> None:
    with pytest.raises(ValueError, match=r"model: '.*' is not 'provider/model' of anthropic, azure, "):
        LMAlias(model, "https://llm.internal")


@pytest.mark.parametrize("model", ["azure/x", "mistral/x", "ollama_chat/x"])
def test_an_operator_gives_the_address_where_it_could_come_from_elsewhere(model: str) -> None:
    LMAlias(model, "https://llm.internal")
    with pytest.raises(ValueError, match=r"api_base: "):
        LMAlias(model)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("\x1b[31mred\x1b[0m", "\ufffd[31mred\ufffd[0m"),
        ("a\r\nb\tc", "a b c"),
        ("\u202eevil \ud800 \x9b \x00", "\ufffdevil \ufffd \ufffd \ufffd"),
        ("naïve 日本 \U0001f600", "naïve 日本 \U0001f600"),
    ],
)
def test_what_an_error_quotes_is_text(said: str, kept: str) -> None:
    error = AdapterError(ErrorCode.TRANSIENT, said, provider_code=said, request_id=said)
    assert (error.message, error.provider_code, error.request_id) == (kept, kept, kept)


def test_what_an_error_quotes_is_cut() -> None:
    error = AdapterError(ErrorCode.TRANSIENT, "x" * 10**6, provider_code="y" * 10**6, request_id="z" * 10**6)
    assert (len(error.message), len(error.provider_code or ""), len(error.request_id or "")) == (4_000, 200, 200)
