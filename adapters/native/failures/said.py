"""Finds the error of a provider, in any format and at any place of a response.

An error may be the body of a response with an error status. It may also be inside a response with status 200, in one of
its choices, or in the middle of a stream. Gateways wrap the error of a provider, sometimes as text.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from adapters.native.failures.waits import asked_in_body, asked_in_headers, asked_in_text
from adapters.native.wire import Call

MAX_TEXT: Final = 4_000
"""How many characters of a message are read."""

_MOST: Final = 400
"""How many members of a body are read."""

_DEEPEST: Final = 8

_WORDS: Final = frozenset({"code", "type", "status", "error_type", "errortype", "__type", "reason", "limit_source"})
"""Members with a code or type, in the errors of all providers."""

_SKIPPED: Final = frozenset({"choices", "usage", "input", "loc", "param", "ctx", "messages", "prompt"})
"""Members that quote the request, or contain the answer."""

_ANSWERS: Final = frozenset({"choices", "content", "output", "candidates"})
"""Members of a successful response: of OpenAI, Anthropic, OpenAI's Responses, and Gemini."""

_WAITS: Final = frozenset({"retrydelay", "retry_after"})
"""Members with a time to wait: of Gemini's RetryInfo, and of gateways."""

_TEXTS: Final = frozenset(
    {"message", "msg", "detail", "error", "error_description", "raw", "title", "errors", "reasons"}
)
"""Members with a text for people."""


_CLASSES = re.compile(r"\blitellm\.(\w{1,60})")
"""The class names that LiteLLM's proxy puts into its texts."""


@dataclass(frozen=True)
class Said:
    """The error of a provider.

    Attributes:
        words: codes and types, in lower case.
        text: a text for people.
        code: the most specific of the words, in its original case.
        wait: how many seconds the provider asks to wait.
    """

    status: int | None = None
    words: frozenset[str] = frozenset()
    text: str = ""
    code: str | None = None
    wait: float | None = None


def said_in_answer(call: Call) -> Said | None:
    """The error in the response to an LM call; None if it has none."""
    if call.status is None:
        return None
    found = list(_errors(call.body, refused=call.status >= 400))
    if not found and call.status < 400:
        return None
    text = "" if found else call.body[:MAX_TEXT].decode(errors="replace")
    return _said(call.status, found, text, call.headers)


def said_in_body(body: Mapping[str, Any]) -> Said | None:
    """The error at any place of a completion; None if it has none."""
    found = list(_in_completion(body))
    return _said(None, found, "", ()) if found else None


def said_by_exception(error: BaseException) -> Said:
    """The error in an exception of DSPy, LiteLLM or a provider's client."""
    words: set[str] = set()
    wait: float | None = None
    status = _status(getattr(error, "status", None))
    code = getattr(error, "provider_code", None)
    if code:
        words.add(str(code).lower())
    found: list[Any] = []
    cause: BaseException | None = error
    while cause is not None:
        # LiteLLM's classes are more specific than DSPy's; `body` and `response` are attributes of providers' clients.
        words.add(type(cause).__name__.lower())
        status = status or _status(getattr(cause, "status_code", None))
        if isinstance(body := getattr(cause, "body", None), Mapping):
            found.append(body)
        headers = getattr(getattr(cause, "response", None), "headers", None)
        if headers is not None and hasattr(headers, "items"):
            wait = _longest(wait, asked_in_headers(list(headers.items()), status))
        if isinstance(limits := getattr(cause, "rate_limit_headers", None), Mapping):
            pairs = [(name, value) for name, values in limits.items() for value in values]
            wait = _longest(wait, asked_in_headers(pairs, status))
        wait = _longest(wait, getattr(cause, "retry_after", None))
        cause = _origin(cause)
    text = str(error).split("\n\n", 1)[0][:MAX_TEXT]
    if (body := _read(text[text.find("{") : text.rfind("}") + 1])) is not None:
        found.append(body)  # LiteLLM quotes it in its text: "litellm.RateLimitError: OpenAIException - {...}"
    said = _said(status, found, "", ())
    wait = _longest(wait, asked_in_text(text))
    return Said(said.status, said.words | words, f"{text} {said.text}", code or said.code, _longest(wait, said.wait))


def _origin(error: BaseException) -> BaseException | None:
    """The exception that another was made from. LiteLLM raises its own without `from` while it handles the original.

    With litellm 1.95, only the original of a `RateLimitError` has the provider's response.
    """
    if error.__cause__ is None and not error.__suppress_context__ and type(error).__module__.startswith("litellm."):
        return error.__context__
    return error.__cause__


def _said(status: int | None, found: list[Any], text: str, headers: Iterable[tuple[str, str]]) -> Said:
    words: list[tuple[str, str]] = []
    texts: list[str] = [text] if text else []
    waits: list[float] = []
    for error in found:
        _collect(error, words, texts, waits)
    told = next((number for _, word in words if (number := _status(word)) is not None), None)
    if told is not None and (status is None or status < 400):
        status = told
    whole = " ".join(texts)[:MAX_TEXT]
    words += [("text", name) for name in _CLASSES.findall(whole)]
    wait = _longest(asked_in_headers(list(headers), status), *waits, asked_in_text(whole))
    names = sorted((word for word in words if _status(word[1]) is None), key=lambda word: word[0] != "code")
    return Said(status, frozenset(word.lower() for _, word in words), whole, names[0][1] if names else None, wait)


def _errors(body: bytes, *, refused: bool) -> Iterator[Any]:
    """The parts of a response's body that are errors."""
    for document in _documents(body):
        if refused:
            yield document
        elif isinstance(document, Mapping):
            yield from _in_completion(document)
        elif isinstance(document, list):
            for item in document[:_MOST]:
                if isinstance(item, Mapping):
                    yield from _in_completion(item)


def _in_completion(body: Mapping[str, Any]) -> Iterator[Any]:
    if body.get("error") or str(body.get("type") or body.get("object")) == "error":
        yield body
        return
    choices = body.get("choices")
    for choice in choices[:_MOST] if isinstance(choices, list) else ():
        if isinstance(choice, Mapping) and choice.get("error"):
            yield choice["error"]
    if (
        not {"choices", "content", "output", "candidates"} & body.keys()
        and {"detail", "message", "errors"} & body.keys()
    ):
        yield body


def _documents(body: bytes) -> Iterator[Any]:
    """The JSON documents in a body: one, or one per line (events of a stream, JSON lines)."""
    try:
        yield json.loads(body)
        return
    except (ValueError, RecursionError):
        pass
    for line in body[: 1 << 20].splitlines()[: 10 * _MOST]:
        text = line.removeprefix(b"data:").strip()
        if text.startswith(b"{") and (b"error" in text or b"detail" in text):
            try:
                yield json.loads(text)
            except (ValueError, RecursionError):
                continue


def _collect(error: Any, words: list[tuple[str, str]], texts: list[str], waits: list[float]) -> None:
    """Collect the words and texts of an error, the outermost first. Bounded, whatever it contains."""
    waiting: deque[tuple[Any, int]] = deque([(error, 0)])
    for _ in range(_MOST):
        if not waiting:
            return
        value, depth = waiting.popleft()
        if isinstance(value, str):
            texts.append(value[:MAX_TEXT])
            # A gateway may pass on JSON as a text.
            inner = _read(value) if value.startswith("{") and len(value) < 10 * MAX_TEXT else None
            below: list[Any] = [inner] if inner else []
        elif isinstance(value, list):
            below = [item for item in value[:_MOST] if isinstance(item, (Mapping, str))]
        else:
            below = _members(value, words, waits)
        if depth < _DEEPEST:
            waiting.extend((item, depth + 1) for item in below)


def _members(error: Mapping[str, Any], words: list[tuple[str, str]], waits: list[float]) -> list[Any]:
    """Collect the words and waits of an object. Returns the members to read next."""
    below = []
    for name, item in list(error.items())[:_MOST]:
        key = str(name).lower()
        if key in _SKIPPED:
            continue
        if key in _WORDS and isinstance(item, (str, int)):
            # Bedrock: "com.amazon...#ThrottlingException:http://internal.amazon.com/..."
            word = str(item)[:500].split(":", 1)[0].rsplit("#", 1)[-1]
            if word not in ("", "error", "True", "False"):
                words.append((key, word))
        elif key in _WAITS:
            waits += [seconds] if (seconds := asked_in_body(item)) is not None else []
        elif isinstance(item, (Mapping, list)) or (key in _TEXTS and isinstance(item, str)):
            below.append(item)
    return below


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _status(value: Any) -> int | None:
    try:
        number = int(value)
    except (TypeError, ValueError):
        return None
    return number if 400 <= number < 600 else None


def _longest(*seconds: float | None) -> float | None:
    return max((wait for wait in seconds if wait is not None), default=None)
