"""What providers answer with when they fail, as they write it, and the code that it ends with.

`docs/errors.md` is made from this table: python -m tests.provider_errors > docs/errors.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dspex import ErrorCode
from tests.lm_server import Answer

C = ErrorCode


@dataclass(frozen=True)
class Case:
    """An answer of a provider. `model` is what is called: its provider decides which client reads the answer."""

    provider: str
    situation: str
    code: ErrorCode
    status: int
    body: Mapping[str, Any] | str
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: float | None = None
    model: str = "openai/gpt-4o-mini"

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.provider}: {self.situation}"

    @property
    def answer(self) -> Answer:
        """For the server."""
        body = self.body.encode() if isinstance(self.body, str) else self.body
        return Answer(status=self.status, body=body, headers=self.headers)


def _openai(message: str, kind: str | None = None, code: str | int | None = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code, **more}}


def _anthropic(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


def _gemini(code: int, status: str, message: str, *details: Mapping[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


CLAUDE, GEMINI, OPENROUTER, VLLM = (
    "anthropic/claude-sonnet-4-5",
    "gemini/gemini-2.5-flash",
    "openrouter/meta-llama/llama-3.1-8b-instruct",
    "hosted_vllm/meta-llama/Llama-3.1-8B-Instruct",
)


def _cases() -> Iterator[Case]:
    yield from _openais()
    yield from _anthropics()
    yield from _geminis()
    yield from _azures()
    yield from _bedrocks()
    yield from _mistrals()
    yield from _openrouters()
    yield from _vllms()
    yield from _llamas()
    yield from _tgis()
    yield from _ollamas()
    yield from _litellms()
    yield from _gateways()


def _openais() -> Iterator[Case]:
    name = "OpenAI"
    long = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens."
    invalid = "invalid_request_error"
    yield Case(name, "context window", C.CONTEXT_WINDOW, 400, _openai(long, invalid, "context_length_exceeded"))
    window = "Your input exceeds the context window of this model. Please adjust your input and try again."
    yield Case(name, "context window, in words", C.CONTEXT_WINDOW, 400, _openai(window, invalid))
    string = "Invalid 'messages[1].content': string too long. Expected a string with maximum length 1048576."
    yield Case(name, "a message too long", C.CONTEXT_WINDOW, 400, _openai(string, invalid, "string_above_max_length"))
    limit = "Rate limit reached for gpt-4o-mini on requests per min (RPM): Limit 3, Used 3. Please try again in 20s."
    limited = _openai(limit, "requests", "rate_limit_exceeded")
    yield Case(name, "rate limit", C.RATE_LIMITED, 429, limited, wait=20)
    large = (
        "Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Requested 41000. "
        "The input or output tokens must be reduced in order to run successfully."
    )
    yield Case(
        name, "more than a minute's limit", C.CONTEXT_WINDOW, 429, _openai(large, "tokens", "rate_limit_exceeded")
    )
    overload = "The engine is currently overloaded, please try again later"
    yield Case(name, "overload", C.TRANSIENT, 503, _openai(overload, "server_error", "engine_overloaded"))
    slow = "Slow down"
    yield Case(name, "slow down", C.TRANSIENT, 503, _openai(slow, "service_unavailable_error", "slow_down"))
    quota = "You exceeded your current quota, please check your plan and billing details."
    yield Case(name, "quota", C.BILLING, 429, _openai(quota, "insufficient_quota", "insufficient_quota"))
    hard = "Billing hard limit has been reached"
    yield Case(name, "billing", C.BILLING, 400, _openai(hard, invalid, "billing_hard_limit_reached"))
    yield Case(name, "auth", C.AUTH, 401, _openai("Incorrect API key provided.", invalid, "invalid_api_key"))
    region = "Country, region, or territory not supported"
    yield Case(
        name, "region", C.AUTH, 403, _openai(region, "request_forbidden", "unsupported_country_region_territory")
    )
    flagged = "Invalid prompt: your prompt was flagged as potentially violating our usage policy."
    yield Case(name, "moderation", C.REFUSED, 400, _openai(flagged, invalid, "invalid_prompt"))
    missing = "The model `gpt-9` does not exist or you do not have access to it."
    yield Case(name, "model not found", C.PERMANENT, 404, _openai(missing, invalid, "model_not_found"))
    parameter = "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) is."
    yield Case(name, "unsupported parameter", C.PERMANENT, 400, _openai(parameter, invalid, "unsupported_value"))
    broken = "The server had an error while processing your request"
    yield Case(name, "server error", C.TRANSIENT, 500, _openai(broken, "server_error"))


def _anthropics() -> Iterator[Case]:
    name = "Anthropic"

    def case(situation: str, code: ErrorCode, status: int, kind: str, message: str, **more: Any) -> Case:
        return Case(name, situation, code, status, _anthropic(kind, message), model=CLAUDE, **more)

    bad = "invalid_request_error"
    yield case("context window", C.CONTEXT_WINDOW, 400, bad, "prompt is too long: 215000 tokens > 200000 maximum")
    both = "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease one of them"
    yield case("context window with max_tokens", C.CONTEXT_WINDOW, 400, bad, both)
    yield case("bytes", C.CONTEXT_WINDOW, 413, "request_too_large", "Request exceeds the maximum size")
    limit = "This request would exceed your organization's rate limit of 50 requests per minute"
    wait = {"retry-after": "17", "anthropic-ratelimit-requests-remaining": "0"}
    yield case("rate limit", C.RATE_LIMITED, 429, "rate_limit_error", limit, headers=wait, wait=17)
    yield case("overload", C.TRANSIENT, 529, "overloaded_error", "Overloaded", headers={"retry-after": "4"}, wait=4)
    limits = "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."
    yield case("quota", C.BILLING, 400, bad, limits)
    balance = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."
    yield case("billing", C.BILLING, 400, bad, balance)
    yield case("auth", C.AUTH, 401, "authentication_error", "invalid x-api-key")
    yield case("permission", C.AUTH, 403, "permission_error", "Your API key does not have permission to use it")
    yield case("moderation", C.REFUSED, 400, bad, "Output blocked by content filtering policy")
    yield case("model not found", C.PERMANENT, 404, "not_found_error", "model: claude-9")
    top_k = "temperature and top_p cannot both be specified for this model"
    yield case("unsupported parameter", C.PERMANENT, 400, bad, top_k)
    yield case("server error", C.TRANSIENT, 500, "api_error", "Internal server error")
    yield case("timeout", C.TIMEOUT, 504, "timeout_error", "Request timed out")


def _geminis() -> Iterator[Case]:
    name = "Gemini"

    def case(situation: str, code: ErrorCode, body: Mapping[str, Any], status: int | None = None, **more: Any) -> Case:
        return Case(name, situation, code, status or body["error"]["code"], body, model=GEMINI, **more)

    long = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."
    yield case("context window", C.CONTEXT_WINDOW, _gemini(400, "INVALID_ARGUMENT", long))
    vertex = "Unable to submit request because the input token count is 40000 but model only supports up to 32768."
    yield case("context window, Vertex", C.CONTEXT_WINDOW, _gemini(400, "INVALID_ARGUMENT", vertex))
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "37s"}
    quota = "You exceeded your current quota, please check your plan and billing details."
    limited = _gemini(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).", retry)
    yield case("rate limit", C.RATE_LIMITED, limited, wait=37)
    yield case("overload", C.TRANSIENT, _gemini(503, "UNAVAILABLE", "The model is overloaded. Please try again later."))
    depleted = "Your prepayment credits are depleted. Please go to AI Studio to manage your project and billing."
    yield case("quota", C.RATE_LIMITED, _gemini(429, "RESOURCE_EXHAUSTED", quota, retry), wait=37)
    yield case("billing", C.BILLING, _gemini(429, "RESOURCE_EXHAUSTED", depleted))
    reason = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    key = "API key not valid. Please pass a valid API key."
    yield case("auth", C.AUTH, _gemini(400, "INVALID_ARGUMENT", key, reason))
    yield case("permission", C.AUTH, _gemini(403, "PERMISSION_DENIED", "Permission denied on resource project x."))
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 5}}
    yield Case(name, "moderation", C.REFUSED, 200, blocked, model=GEMINI)
    held = {"candidates": [{"finishReason": "SAFETY", "index": 0}], "usageMetadata": {"promptTokenCount": 5}}
    yield Case(name, "moderation of the answer", C.REFUSED, 200, held, model=GEMINI)
    missing = "models/gemini-9 is not found for API version v1beta"
    yield case("model not found", C.PERMANENT, _gemini(404, "NOT_FOUND", missing))
    unknown = 'Invalid JSON payload received. Unknown name "foo": Cannot find field.'
    yield case("unsupported parameter", C.PERMANENT, _gemini(400, "INVALID_ARGUMENT", unknown))
    yield case("server error", C.TRANSIENT, _gemini(500, "INTERNAL", "An internal error has occurred."))
    yield case("timeout", C.TIMEOUT, _gemini(504, "DEADLINE_EXCEEDED", "The request timed out."))


def _azures() -> Iterator[Case]:
    name = "Azure"
    long = "This model's maximum context length is 16385 tokens. However, your messages resulted in 20000 tokens."
    exceeded = _openai(long, "invalid_request_error", "context_length_exceeded")
    yield Case(name, "context window", C.CONTEXT_WINDOW, 400, exceeded)
    limit = (
        "Requests to the ChatCompletions_Create Operation under Azure OpenAI API have exceeded token rate limit of "
        "your current OpenAI S0 pricing tier. Please retry after 6 seconds."
    )
    yield Case(name, "rate limit", C.RATE_LIMITED, 429, {"error": {"code": "429", "message": limit}}, wait=6)
    milliseconds = {"retry-after-ms": "1500"}
    reached = {"error": {"code": "RateLimitReached", "message": "Your requests have exceeded the limit."}}
    yield Case(name, "rate limit in ms", C.RATE_LIMITED, 429, reached, milliseconds, 1.5)
    busy = {"error": {"code": "InternalServerError", "message": "The server is temporarily unavailable."}}
    yield Case(name, "overload", C.TRANSIENT, 503, busy)
    volume = {"statusCode": 403, "message": "Out of call volume quota. Quota will be replenished in 10:00:00."}
    yield Case(name, "quota", C.BILLING, 403, volume)
    inactive = {"error": {"code": "billing_not_active", "message": "Your account is not active."}}
    yield Case(name, "billing", C.BILLING, 403, inactive)
    key = "Access denied due to invalid subscription key or wrong API endpoint."
    yield Case(name, "auth", C.AUTH, 401, {"error": {"code": "401", "message": key}})
    filtered = _openai(
        "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        code="content_filter",
        status=400,
        innererror={"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}},
    )
    yield Case(name, "moderation", C.REFUSED, 400, filtered)
    deployment = "The API deployment for this resource does not exist."
    missing = {"error": {"code": "DeploymentNotFound", "message": deployment}}
    yield Case(name, "model not found", C.PERMANENT, 404, missing)
    parameter = _openai("Unsupported parameter: 'max_tokens'", "invalid_request_error", "unsupported_parameter")
    yield Case(name, "unsupported parameter", C.PERMANENT, 400, parameter)


def _bedrocks() -> Iterator[Case]:
    name = "Bedrock"

    def case(situation: str, code: ErrorCode, status: int, kind: str, message: str) -> Case:
        return Case(name, situation, code, status, {"__type": f"com.amazon.coral#{kind}", "message": message})

    yield case("context window", C.CONTEXT_WINDOW, 400, "ValidationException", "Input is too long for requested model.")
    throttled = "Too many tokens, please wait before trying again."
    yield case("rate limit", C.RATE_LIMITED, 429, "ThrottlingException", throttled)
    yield case("overload", C.TRANSIENT, 503, "ServiceUnavailableException", "Bedrock is unable to process it.")
    quota = "Your request exceeds the service quota for your account."
    yield case("quota", C.RATE_LIMITED, 400, "ServiceQuotaExceededException", quota)
    token = "The security token included in the request is expired"
    yield case("auth", C.AUTH, 403, "ExpiredTokenException", token)
    access = "You don't have access to the model with the specified model ID."
    yield case("permission", C.AUTH, 403, "AccessDeniedException", access)
    guardrail = "The guardrail has intervened: content policy"
    yield case("moderation", C.REFUSED, 400, "ValidationException", guardrail)
    missing = "Could not resolve the foundation model from the provided model identifier."
    yield case("model not found", C.PERMANENT, 404, "ResourceNotFoundException", missing)
    malformed = "Malformed input request: extraneous key [foo] is not permitted"
    yield case("unsupported parameter", C.PERMANENT, 400, "ValidationException", malformed)
    yield case("model not ready", C.TRANSIENT, 429, "ModelNotReadyException", "The model is not ready for inference.")
    yield case("timeout", C.TIMEOUT, 408, "ModelTimeoutException", "Model has timed out in processing the request.")
    yield case("model error", C.TRANSIENT, 424, "ModelErrorException", "The request failed in the model.")


def _mistrals() -> Iterator[Case]:
    name = "Mistral"

    def error(message: str, kind: str, code: str) -> dict[str, Any]:
        return {"object": "error", "message": message, "type": kind, "param": None, "code": code}

    long = "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length"
    yield Case(name, "context window", C.CONTEXT_WINDOW, 400, error(long, "invalid_request_error", "3051"))
    yield Case(name, "rate limit", C.RATE_LIMITED, 429, {"message": "Requests rate limit exceeded"})
    tier = "Service tier capacity exceeded for this model."
    yield Case(name, "overload", C.RATE_LIMITED, 429, error(tier, "service_tier_capacity_exceeded", "3505"))
    yield Case(name, "billing", C.BILLING, 402, {"detail": "Payment required"})
    yield Case(name, "auth", C.AUTH, 401, {"message": "Unauthorized", "request_id": "r1"})
    yield Case(name, "model not found", C.PERMANENT, 400, error("Invalid model: mistral-9", "invalid_model", "1500"))
    extra = {"type": "extra_forbidden", "loc": ["body", "foo"], "msg": "Extra inputs are not permitted", "input": 1}
    yield Case(name, "unsupported parameter", C.PERMANENT, 422, {"object": "error", "message": {"detail": [extra]}})
    yield Case(name, "server error", C.TRANSIENT, 500, error("Service unavailable.", "internal_server_error", "3000"))


def _openrouters() -> Iterator[Case]:
    name = "OpenRouter"

    def case(situation: str, code: ErrorCode, status: int, message: str, told: int | None = None, **more: Any) -> Case:
        metadata = more.pop("metadata", None)
        error = {"message": message, "code": told or status} | ({"metadata": metadata} if metadata else {})
        return Case(name, situation, code, status, {"error": error, "user_id": "u"}, model=OPENROUTER, **more)

    long = "This endpoint's maximum context length is 8192 tokens. However, you requested about 9000 tokens"
    yield case("context window", C.CONTEXT_WINDOW, 400, long)
    raw = json.dumps(_openai("prompt is too long: 215000 tokens > 200000 maximum"))
    metadata = {"raw": raw, "provider_name": "Anthropic"}
    yield case("context window of a provider", C.CONTEXT_WINDOW, 400, "Provider returned error", metadata=metadata)
    yield case("rate limit", C.RATE_LIMITED, 429, "Rate limit exceeded: free-models-per-min.")
    yield case("rate limit in a 200", C.RATE_LIMITED, 200, "Provider returned error", 429)
    yield case("overload", C.TRANSIENT, 503, "No instances available", headers={"Retry-After": "9"}, wait=9)
    yield case("overload in a 200", C.TRANSIENT, 200, "Provider returned error", 502)
    yield case("quota", C.BILLING, 403, "Key limit exceeded (total limit). Manage it in your settings")
    yield case("billing", C.BILLING, 402, "Insufficient credits. Add more using https://openrouter.ai/credits")
    budget = {"limit_source": "openrouter_in_flight_budget"}
    wait = {"Retry-After": "3"}
    yield case("budget in flight", C.RATE_LIMITED, 402, "Wait", metadata=budget, headers=wait, wait=3)
    yield case("auth", C.AUTH, 401, "No auth credentials found")
    flagged = {"reasons": ["violence"], "flagged_input": "...", "provider_name": "OpenAI"}
    moderated = "openai/gpt-4o requires moderation on OpenAI. Your input was flagged for violence."
    yield case("moderation", C.REFUSED, 403, moderated, metadata=flagged)
    yield case("model not found", C.PERMANENT, 404, "No endpoints found for meta-llama/llama-9.")
    yield case("model unknown", C.PERMANENT, 400, "meta-llama/llama-9 is not a valid model ID")
    yield case("timeout", C.TIMEOUT, 408, "Request timed out")
    choice = {
        "choices": [
            {
                "index": 0,
                "finish_reason": "error",
                "error": {"code": 502, "message": "Upstream error from Chutes"},
                "message": {"role": "assistant", "content": "[[ ## answer ## ]]\nPar"},
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3},
    }
    yield Case(name, "error in a choice", C.TRANSIENT, 200, choice, model=OPENROUTER)


def _vllms() -> Iterator[Case]:
    name = "vLLM"

    def case(situation: str, code: ErrorCode, status: int, message: str, kind: str = "BadRequestError") -> Case:
        return Case(name, situation, code, status, _openai(message, kind, status), model=VLLM)

    requested = (
        "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens (8000 in the messages, "
        "1000 in the completion)."
    )
    yield case("context window", C.CONTEXT_WINDOW, 400, requested)
    longer = "The decoder prompt (length 9000) is longer than the maximum model length of 8192."
    yield case("context window, longer prompt", C.CONTEXT_WINDOW, 400, longer)
    fit = "The prompt (total length 25938) is too long to fit into the model (context length 4096)."
    yield case("context window, too long to fit", C.CONTEXT_WINDOW, 400, fit)
    before = {"object": "error", "message": requested, "type": "BadRequestError", "param": None, "code": 400}
    yield Case(name, "context window, no envelope", C.CONTEXT_WINDOW, 400, before, model=VLLM)
    yield Case(name, "auth", C.AUTH, 401, {"error": "Unauthorized"}, model=VLLM)
    missing = "The model `llama-9` does not exist."
    yield case("model not found", C.PERMANENT, 404, missing, "NotFoundError")
    yield case("unsupported parameter", C.PERMANENT, 400, "[{'type': 'extra_forbidden', 'loc': ('body', 'foo')}]")
    yield case("overload", C.TRANSIENT, 503, "The server is overloaded", "ServiceUnavailableError")
    yield case("server error", C.TRANSIENT, 500, "EngineCore encountered an issue.", "InternalServerError")


def _llamas() -> Iterator[Case]:
    name = "llama.cpp"

    def case(situation: str, code: ErrorCode, status: int, kind: str, message: str) -> Case:
        return Case(name, situation, code, status, {"error": {"code": status, "message": message, "type": kind}})

    size = "exceed_context_size_error"
    yield case("context window", C.CONTEXT_WINDOW, 400, size, "the request exceeds the available context size")
    tokens = "request (9000 tokens) exceeds the available context size (4096 tokens), try increasing it"
    yield case("context window, in words", C.CONTEXT_WINDOW, 400, "invalid_request_error", tokens)
    yield case("overload", C.TRANSIENT, 503, "unavailable_error", "Loading model")
    yield case("auth", C.AUTH, 401, "authentication_error", "Invalid API Key")
    yield case("unsupported parameter", C.PERMANENT, 501, "not_supported_error", "This server does not support it")
    yield case("server error", C.TRANSIENT, 500, "server_error", "Failed to process")


def _tgis() -> Iterator[Case]:
    name = "TGI"

    def case(situation: str, code: ErrorCode, status: int, kind: str, message: str) -> Case:
        return Case(name, situation, code, status, {"error": message, "error_type": kind})

    tokens = "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 and 100"
    yield case("context window", C.CONTEXT_WINDOW, 422, "validation", tokens)
    less = "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000"
    yield case("context window, inputs alone", C.CONTEXT_WINDOW, 422, "validation", less)
    yield case("overload", C.RATE_LIMITED, 429, "overloaded", "Model is overloaded")
    penalty = "Input validation error: `repetition_penalty` must be strictly positive"
    yield case("unsupported parameter", C.PERMANENT, 422, "validation", penalty)
    memory = "Request failed during generation: Server error: CUDA out of memory."
    yield case("server error", C.TRANSIENT, 424, "generation", memory)
    yield case("incomplete", C.TRANSIENT, 500, "incomplete_generation", "Incomplete generation")


def _ollamas() -> Iterator[Case]:
    name = "Ollama"
    long = "the input length exceeds the context length"
    yield Case(name, "context window", C.CONTEXT_WINDOW, 400, _openai(long, "invalid_request_error"))
    prompt = {"error": "prompt too long; exceeded max context length by 120 tokens"}
    yield Case(name, "context window, no envelope", C.CONTEXT_WINDOW, 400, prompt)
    busy = "server busy, please try again. maximum pending requests exceeded"
    yield Case(name, "overload", C.TRANSIENT, 503, _openai(busy, "api_error"))
    missing = 'model "llama9" not found, try pulling it first'
    yield Case(name, "model not found", C.PERMANENT, 404, _openai(missing, "api_error"))
    tools = "registry.ollama.ai/library/gemma does not support tools"
    yield Case(name, "unsupported parameter", C.PERMANENT, 400, _openai(tools, "api_error"))
    runner = "llama runner process has terminated: exit status 2"
    yield Case(name, "server error", C.TRANSIENT, 500, _openai(runner, "api_error"))
    yield Case(name, "error in a 200", C.TRANSIENT, 200, {"error": "an error was encountered while running the model"})


def _litellms() -> Iterator[Case]:
    name = "LiteLLM's proxy"

    def case(situation: str, code: ErrorCode, status: int, message: str, kind: str | None = None, **more: Any) -> Case:
        return Case(name, situation, code, status, _openai(message, kind, str(status)), **more)

    window = "litellm.ContextWindowExceededError: litellm.BadRequestError: AnthropicException - too long"
    yield case("context window", C.CONTEXT_WINDOW, 400, window)
    passed = "litellm.BadRequestError: VertexAIException - The input token count (9) exceeds the maximum number allowed"
    yield case("context window, passed on", C.CONTEXT_WINDOW, 400, passed)
    limit = "litellm.RateLimitError: AzureException RateLimitError - Please retry after 12 seconds."
    yield case("rate limit", C.RATE_LIMITED, 429, limit, "throttling_error", wait=12)
    none = "No deployments available for selected model, Try again in 5 seconds. Passed model=gpt"
    yield case("overload", C.RATE_LIMITED, 429, none, wait=5)
    budget = "ExceededBudget: Budget has been exceeded! Current cost: 12.0, Max budget: 10.0"
    yield case("quota", C.BILLING, 400, budget, "budget_exceeded")
    token = "Authentication Error, Invalid proxy server token passed. key=sk-..., not found in db"
    yield case("auth", C.AUTH, 401, token, "token_not_found_in_db")
    access = "key not allowed to access model. This key can only access models=['a']"
    yield case("permission", C.AUTH, 403, access, "key_model_access_denied")
    policy = "litellm.ContentPolicyViolationError: litellm.BadRequestError: AzureException - filtered"
    yield case("moderation", C.REFUSED, 400, policy)
    missing = "/chat/completions: Invalid model name passed in model=x. Call `/v1/models` to view available models"
    yield case("model not found", C.PERMANENT, 400, missing)
    parameter = "litellm.UnsupportedParamsError: groq does not support parameters: ['n']"
    yield case("unsupported parameter", C.PERMANENT, 400, parameter)
    yield case("server error", C.TRANSIENT, 500, "litellm.InternalServerError: Connection error.")


def _gateways() -> Iterator[Case]:
    name = "Gateways"
    html = "<html><head><title>503 Service Temporarily Unavailable</title></head><body>nginx</body></html>"
    yield Case(name, "overload as a page", C.TRANSIENT, 503, html, {"Retry-After": "6"}, 6)
    yield Case(name, "bytes, as a page", C.CONTEXT_WINDOW, 413, "<html>413 Request Entity Too Large</html>")
    yield Case(name, "timeout as a page", C.TIMEOUT, 524, "<html>A timeout occurred</html>")
    yield Case(name, "no JSON in a 200", C.TRANSIENT, 200, "<html>Please log in</html>")
    chunk = json.dumps({"choices": [{"index": 0, "delta": {"content": "Par"}, "finish_reason": None}]})
    limited = json.dumps({"error": {"code": 429, "message": "Rate limit exceeded"}, "choices": [{"delta": {}}]})
    yield Case(name, "rate limit in a stream's middle", C.RATE_LIMITED, 200, f"data: {chunk}\n\ndata: {limited}\n\n")
    overloaded = json.dumps(_anthropic("overloaded_error", "Overloaded"))
    stream = f"event: error\ndata: {overloaded}\n\n"
    yield Case(name, "overload in a stream's middle", C.TRANSIENT, 200, f"data: {chunk}\n\n{stream}")
    detail = {"detail": "This model's maximum context length is 8192 tokens"}
    yield Case(name, "context window in a 200", C.CONTEXT_WINDOW, 200, detail)
    errors = {"errors": [{"message": "Rate limit exceeded", "code": 429}], "success": False}
    yield Case(name, "a list of errors in a 200", C.RATE_LIMITED, 200, errors)


CASES = tuple(_cases())

HEAD = """# What a provider's error ends with

Whatever shape a provider gives its errors, an execution that fails has one of the codes of `dspex.ErrorCode`, by what
is meant. This table is made from the answers that the tests try on `native` and `python_port`
(`python -m tests.provider_errors`); the rules are `adapters/native/failures/meanings.py`, with their sources. Where an
answer asks to wait, the next attempt is not made before.

| provider | situation | status | code | wait |
|---|---|---|---|---|
"""


def document() -> str:
    """The text of `docs/errors.md`."""
    rows = [
        f"| {case.provider} | {case.situation} | {case.status} | `{case.code}` | "
        f"{'' if case.wait is None else f'{case.wait:g} s'} |"
        for case in CASES
    ]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(document(), end="")
