"""Classifies the errors of providers by one table, read from the top.

A provider reports an error by the HTTP status, by a code or type in the body, or only in a text. Gateways pass on the
error of a provider under a status of their own. So the first rule that fits counts, and specific rules come before
general ones.

Sources, read in November 2026:
OpenAI: https://platform.openai.com/docs/guides/error-codes
Anthropic: https://docs.anthropic.com/en/api/errors
Gemini: https://ai.google.dev/gemini-api/docs/troubleshooting, https://cloud.google.com/apis/design/errors
Azure: https://learn.microsoft.com/azure/ai-services/openai/concepts/content-filter, .../reference (error codes)
Bedrock: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html (errors)
Mistral: https://docs.mistral.ai/api, mistralai/client-python issues
OpenRouter: https://openrouter.ai/docs/api/reference/errors-and-debugging
vLLM: vllm-project/vllm, entrypoints/openai (issues 12165, 20409, 33418, 37011, 42474)
llama.cpp: ggml-org/llama.cpp, tools/server (`format_error_response`)
TGI: huggingface/text-generation-inference, router/src/validation.rs and infer
Ollama: ollama/ollama, server/routes.go, openai/openai.go, runner
LiteLLM: https://docs.litellm.ai/docs/exception_mapping, litellm/proxy/_types.py
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from dspex import ErrorCode

NOTHING: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True)
class Rule:
    """Fits an error by its status, by one of its words (codes and types, in lower case), or by its text."""

    code: ErrorCode
    words: frozenset[str] = NOTHING
    statuses: frozenset[int] = frozenset()
    text: re.Pattern[str] | None = None

    def fits(self, status: int | None, words: frozenset[str], text: str) -> bool:
        """Whether the rule fits an error."""
        if status in self.statuses or not self.words.isdisjoint(words):
            return True
        return self.text is not None and self.text.search(text) is not None


def _rule(code: ErrorCode, words: str = "", *texts: str, statuses: tuple[int, ...] = ()) -> Rule:
    pattern = re.compile("|".join(texts), re.IGNORECASE) if texts else None
    return Rule(code, frozenset(words.split()), frozenset(statuses), pattern)


RULES: Final = (
    _rule(
        # OpenRouter's transient 402: a budget for requests in progress, not for money.
        ErrorCode.RATE_LIMITED,
        "openrouter_in_flight_budget",
    ),
    _rule(
        ErrorCode.REFUSED,
        "content_filter content_policy_violation contentpolicyviolationerror responsibleaipolicyviolation "
        "invalid_prompt moderation_blocked image_content_policy_violation safety recitation blocklist "
        "prohibited_content spii image_safety image_prohibited_content language promptfeedback guardrail_intervened",
        r"content management policy",
        r"\bwas flagged\b",
        r"flagged (?:as|for) ",
        r"blocked by (?:the )?content filter",
        r"content filtering policy",
        r"violat\w+ (?:of )?(?:our|the|\w+'s) (?:usage|content|safety)",
        r"prompt (?:was )?blocked",
        r"guardrail\w* .{0,40}interven",
    ),
    _rule(
        ErrorCode.CONTEXT_WINDOW,
        "context_length_exceeded exceed_context_size_error contextwindowexceedederror context_window_exceeded "
        "string_above_max_length request_too_large model_max_prompt_tokens_exceeded",
        r"maximum context length",  # OpenAI, vLLM, OpenRouter, Mistral, DeepSeek
        r"context (?:length|window|size|limit) (?:was |is |has been )?exceeded",
        r"exceed\w* (?:the |its |this |your |max )*(?:model'?s? |available |maximum )*context",  # OpenAI, llama.cpp
        r"prompt is too long|prompt too long",  # Anthropic, Ollama
        r"input is too long for",  # Bedrock
        r"too many input tokens|too many total text tokens",  # Bedrock
        r"input token count .{0,60}(?:exceeds|only supports)",  # Gemini, Vertex
        r"(?:prompt|input).{0,60} longer than the maximum (?:model|input|context) length",  # vLLM
        r"prompt .{0,40}is too long to fit into the model",  # vLLM
        r"too large for model with \d+ maximum context",  # Mistral
        r"`?inputs`? (?:tokens )?(?:\+ `?max_new_tokens`? must be <=|must have less than \d+ tokens)",  # TGI
        r"input length (?:and|exceeds|\(\d+\) exceeds)",  # Anthropic, Ollama, SGLang
        r"maximum prompt length is \d+",  # xAI
        r"reduce the length of (?:the |your )?(?:messages|prompt|input)",  # OpenAI, Groq
        r"request too large for .{0,200}limit \d+, requested \d+",  # over a minute's limit: waiting is no help
        r"context the overflows",  # LM Studio
        r"the maximum tokens you requested exceeds",  # Bedrock
    ),
    _rule(
        ErrorCode.BILLING,
        "insufficient_quota billing_error billing_not_active billing_hard_limit_reached insufficient_credits "
        "insufficient_balance budget_exceeded budgetexceedederror exceeded_current_quota_error 1113 payment_required "
        "arrearage",
        r"credit balance is too low",
        r"insufficient (?:account )?(?:credits?|balance|funds)",
        r"(?:prepayment )?credits are depleted|requires more credits|add (?:more )?credits",
        r"budget has been exceeded|exceededbudget",
        r"key limit exceeded",
        r"out of call volume quota",
        r"reached your specified api usage limits",
        r"check your billing details|billing account|billing hard limit",
        statuses=(402,),
    ),
    _rule(ErrorCode.TRANSIENT, "modelnotreadyexception"),  # Bedrock, 429: the model is still loaded
    _rule(
        ErrorCode.AUTH,
        "invalid_api_key authentication_error auth_error authenticationerror permission_error permission_denied "
        "unauthenticated api_key_invalid api_key_expired expiredtokenexception unrecognizedclientexception "
        "accessdeniedexception token_not_found_in_db expired_key key_model_access_denied invalid_token "
        "account_deactivated 401 403",
        r"(?:invalid|incorrect) (?:proxy server )?(?:x-)?(?:api[ -]key|token)",
        r"api key (?:not valid|expired)",
        r"no auth credentials",
        r"security token .{0,40}(?:invalid|expired)",
        statuses=(401, 403),
    ),
    _rule(
        ErrorCode.RATE_LIMITED,
        "rate_limit_error rate_limit_exceeded rate_limited ratelimiterror ratelimitreached too_many_requests "
        "toomanyrequestsexception throttlingexception throttling_error resource_exhausted "
        "service_tier_capacity_exceeded servicequotaexceededexception no_capacity 429",
        r"rate limit",
        r"too many requests",
        r"too many tokens, please wait",
        r"no deployments available",
        statuses=(429,),
    ),
    _rule(
        ErrorCode.TIMEOUT,
        "timeout timeout_error request_timeout deadline_exceeded modeltimeoutexception 408 504",
        statuses=(408, 504, 524),
    ),
    _rule(
        ErrorCode.PERMANENT,
        "model_not_found not_found_error notfounderror deploymentnotfound invalid_model unsupported_parameter "
        "unsupported_value resourcenotfoundexception unsupportedparamserror not_supported_error",
        r"unsupported (?:parameter|value)",
        r"model .{0,200}(?:not found|does not exist)",
        r"not a valid model",
        statuses=(404, 405, 410, 501),
    ),
    _rule(ErrorCode.CONTEXT_WINDOW, statuses=(413,)),
    _rule(
        ErrorCode.TRANSIENT,
        "overloaded_error overloaded engine_overloaded slow_down server_error internal internal_server_error "
        "internalservererror internalserverexception serviceunavailableexception service_unavailable unavailable "
        "unavailable_error modelerrorexception modelstreamerrorexception incomplete_generation 500 502 503 529",
        r"overloaded",
        r"temporarily unavailable",
        r"loading model",
        r"server (?:is )?busy",
        r"cuda out of memory",
        r"upstream connect error|no healthy upstream|bad gateway",
        statuses=(425, *range(500, 600)),
    ),
    _rule(
        ErrorCode.PERMANENT,
        "invalid_request_error invalid_argument failed_precondition validationexception validation badrequesterror "
        "extra_forbidden bad_request 400 422",
        statuses=tuple(range(400, 425)),
    ),
    _rule(ErrorCode.TRANSIENT, "api_error error generation"),
)
"""The first rule that fits counts."""


def meaning(status: int | None, words: frozenset[str], text: str) -> ErrorCode | None:
    """The code of the first rule that fits; None if none does."""
    return next((rule.code for rule in RULES if rule.fits(status, words, text)), None)
