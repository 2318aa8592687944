"""A stand-in for an LM provider: an OpenAI-compatible server on this machine, whose answers a test scripts.

    with LMServer() as server:
        server.script = fields(answer="blue")
        ...  # an LM "openai/any-model" with api_base=server.url
    assert server.requests[0].authorization == "Bearer ..."

A script is a function from `Request` to `Answer`. The default one reads from DSPy's prompt which outputs are asked for,
and in which format (`ChatAdapter`'s sections or `JSONAdapter`'s object), and answers with values that fit.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NoReturn, Self

KEPT_REQUESTS = 1_000


@dataclass(frozen=True)
class Request:
    """What the server was asked: the JSON body, and the headers with their names in lower case."""

    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def authorization(self) -> str | None:
        """The `Authorization` header."""
        return self.headers.get("authorization")

    @property
    def prompt(self) -> Prompt:
        """The messages, as DSPy wrote them."""
        texts = {message["role"]: _text(message["content"]) for message in self.body["messages"]}
        return Prompt(texts.get("system", ""), texts.get("user", ""))


@dataclass(frozen=True)
class Answer:
    """What the server answers: `text` as a chat completion, or any `body`.

    Attributes:
        cut: end the connection in the middle.
        pieces, pause: send it in so many pieces, with so many seconds between them.
        endless: send white space, a byte at a time with `pause` between them, and never the answer.
    """

    text: str = ""
    status: int = 200
    body: bytes | Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    finish_reason: str = "stop"
    cut: bool = False
    pieces: int = 1
    pause: float = 0.0
    endless: bool = False


Script = Callable[[Request], Answer]


@dataclass(frozen=True)
class Prompt:
    """DSPy's prompt for one call: the system message describes the fields, the user message holds the inputs."""

    system: str
    user: str

    @property
    def wants_json(self) -> bool:
        """Whether an object is asked for (`JSONAdapter`), not sections (`ChatAdapter`)."""
        return "Respond with a JSON object in the following order of fields:" in self.user

    @property
    def inputs(self) -> dict[str, str]:
        """The input sections of the user message."""
        asked = self.user.rindex("Respond with")
        parts = re.split(r"^\[\[ ## (\w+) ## \]\]\n", self.user[:asked], flags=re.MULTILINE)
        return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        """A JSON Schema for each output: what the prompt says of it."""
        asked = self.user[self.user.rindex("Respond with") :]
        pattern = r"`(\w+)`" if self.wants_json else r"`\[\[ ## (\w+) ## \]\]`"
        names = re.findall(pattern, asked)
        if not self.wants_json:
            names.pop()  # the marker of the end
        return {name: _note(self.system, name) | _limits(self.system, name) for name in names}


class LMServer:
    """The server.

    Attributes:
        script: what it answers; may be changed at any time.
        requests: those so far, the last 1,000.
        connections: how many were opened so far.
        closing: set when the server ends.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.script: Script = script or fitting
        self.requests: deque[Request] = deque(maxlen=KEPT_REQUESTS)
        self.strays: deque[dict[str, str]] = deque(maxlen=KEPT_REQUESTS)
        self.connections = 0
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.lm_server = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """The address for `api_base`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


# Scripts


def fitting(request: Request) -> Answer:
    """Values that fit the types and the constraints in the prompt."""
    return _answer(request.prompt, {name: value_of(schema) for name, schema in request.prompt.outputs.items()})


def fields(**values: Any) -> Script:
    """These values for these outputs, values that fit for the others."""
    return answers_by(lambda _: values)


def answers_by(answer: Callable[[Mapping[str, str]], Mapping[str, Any]]) -> Script:
    """The outputs that a function gives for the inputs (as texts); values that fit for those it leaves out."""

    def script(request: Request) -> Answer:
        prompt = request.prompt
        given = answer(prompt.inputs)
        values = {name: given[name] if name in given else value_of(schema) for name, schema in prompt.outputs.items()}
        return _answer(prompt, values)

    return script


def text(content: str, finish_reason: str = "stop") -> Script:
    """This text, whatever was asked for."""
    return lambda _: Answer(content, finish_reason=finish_reason)


def error(
    status: int,
    *,
    code: str | None = None,
    message: str = "no",
    kind: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Script:
    """An error as OpenAI writes it (https://platform.openai.com/docs/guides/error-codes)."""
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return lambda _: Answer(status=status, body=body, headers=headers or {})


def unauthorized(request: Request) -> Answer:
    """401; the message quotes the key, as some providers do."""
    key = (request.authorization or "").removeprefix("Bearer ")
    return error(401, code="invalid_api_key", message=f"Incorrect API key provided: {key}.")(request)


def rate_limited(seconds: int | None = None) -> Script:
    """429, with Retry-After where the seconds are given."""
    headers = {} if seconds is None else {"Retry-After": str(seconds)}
    return error(429, code="rate_limit_exceeded", message="Rate limit reached", headers=headers)


out_of_quota = error(429, code="insufficient_quota", kind="insufficient_quota", message="You exceeded your quota")
context_too_long = error(400, code="context_length_exceeded", message="This model's maximum context is 8192 tokens")
server_error = error(500, message="The server had an error", kind="server_error")
unknown_model = error(404, code="model_not_found", message="The model does not exist")
bad_request = error(400, code="invalid_value", message="Invalid value", kind="invalid_request_error")
filtered = error(400, code="content_filter", message="The prompt was filtered", kind="invalid_request_error")


def malformed(_: Request) -> Answer:
    """200, with a body that is not JSON."""
    return Answer(body=b'{"id": "chatcmpl')


def cut_off(_: Request) -> Answer:
    """The connection ends in the middle of the answer."""
    return Answer("never read", cut=True)


def slow(seconds: float, script: Script = fitting) -> Script:
    """The script's answer, after some time."""

    def later(request: Request) -> Answer:
        time.sleep(seconds)
        return script(request)

    return later


def held(until: threading.Event, script: Script = fitting) -> Script:
    """The script's answer, once the event is set."""

    def later(request: Request) -> Answer:
        until.wait()
        return script(request)

    return later


def streamed(pieces: int, pause: float, script: Script = fitting) -> Script:
    """The script's answer in pieces, each some seconds after the one before."""
    return lambda request: replace(script(request), pieces=pieces, pause=pause)


def dripping(pause: float = 0.01) -> Script:
    """An answer that begins and never ends: every wait for the next byte is short."""
    return lambda _: Answer(endless=True, pause=pause)


def large(characters: int) -> Script:
    """An answer whose outputs that are texts have so many characters."""

    def script(request: Request) -> Answer:
        texts = [name for name, schema in request.prompt.outputs.items() if schema == {"type": "string"}]
        return fields(**dict.fromkeys(texts, "x" * characters))(request)

    return script


def in_turn(*scripts: Script) -> Script:
    """One script after the other; the last one from then on."""
    turns: Iterator[Script] = itertools.chain(scripts, itertools.repeat(scripts[-1]))
    lock = threading.Lock()

    def script(request: Request) -> Answer:
        with lock:
            turn = next(turns)
        return turn(request)

    return script


# Reading prompts, writing answers


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _note(system: str, name: str) -> dict[str, Any]:
    """What DSPy notes beside an output's place in the structure (dspy 3.4: adapters/utils.py, translate_field_type)."""
    found = re.search(rf"\{{{name}\}} +# note: the value you produce (.*)", system)
    if found is None:
        return {"type": "string"}
    note = found[1]
    for marker, schema in _NOTES.items():
        if note.startswith(marker):
            return schema
    if note.startswith("must be one of"):  # the values of an Enum, which DSPy reads by their types
        values = re.split(r"; ", _unquoted(note.split("one of: ", 1)[1]))
        return {"enum": [int(value) if value.isdigit() else value for value in values]}
    if note.startswith("must exactly match"):
        return {"enum": re.split(r"; ", _unquoted(note.split("one of: ", 1)[1]))}
    decoder = json.JSONDecoder()
    source = note.split("JSON schema: ", 1)[1]
    try:
        schema, _ = decoder.raw_decode(source)
    except json.JSONDecodeError:  # inside JSONAdapter's object the note is a JSON string itself
        schema, _ = decoder.raw_decode(json.loads(f'"{source.rstrip(",").removesuffix(chr(34))}"'))
    return dict(schema)


_NOTES: dict[str, dict[str, Any]] = {
    "must be True or False": {"type": "boolean"},
    "must be a single int": {"type": "integer"},
    "must be a single float": {"type": "number"},
}


def _unquoted(note: str) -> str:
    return note.removesuffix(",").removesuffix('"')


_LIMITS = {
    "greater than": "exclusiveMinimum",
    "greater than or equal to": "minimum",
    "less than": "exclusiveMaximum",
    "less than or equal to": "maximum",
    "minimum length": "min",
    "maximum length": "max",
    "a multiple of the given number": "multipleOf",
}


def _limits(system: str, name: str) -> dict[str, Any]:
    """The constraints line of an output's description (dspy 3.4: signatures/field.py)."""
    found = re.search(rf"^\d+\. `{name}` \(.*\):.*\nConstraints: (.*)$", system, flags=re.MULTILINE)
    pairs = [pair.rsplit(": ", 1) for pair in found[1].split(", ")] if found else []
    limits = {_LIMITS[words]: json.loads(number) for words, number in pairs}
    for side in ("min", "max"):
        if side in limits:
            number = limits.pop(side)
            limits |= {f"{side}Length": number, f"{side}Items": number}
    return limits


def value_of(schema: Mapping[str, Any], definitions: Mapping[str, Any] | None = None) -> Any:
    """The plainest value that fits a JSON Schema (of those that pydantic writes for our types)."""
    known = schema.get("$defs", definitions) or {}
    if "$ref" in schema:
        return value_of(known[schema["$ref"].rsplit("/", 1)[1]], known)
    if "enum" in schema or "const" in schema:
        return schema["enum"][0] if "enum" in schema else schema["const"]
    if "oneOf" in schema:
        return value_of(schema["oneOf"][0], known)
    if "anyOf" in schema:
        limits = {key: value for key, value in schema.items() if key != "anyOf"}
        return value_of(limits | schema["anyOf"][0], known)
    return _of_type(schema, known)


def _of_type(schema: Mapping[str, Any], known: Mapping[str, Any]) -> Any:
    match schema.get("type"):
        case "integer" | "number":
            return _number(schema)
        case "boolean":
            return True
        case "array" if "prefixItems" in schema:
            return [value_of(item, known) for item in schema["prefixItems"]]
        case "array":
            return [value_of(schema["items"], known)] * max(1, schema.get("minItems", 1))
        case "object" if schema.get("additionalProperties") is True:
            return {"key": "an answer"}
        case "string" if "format" in schema or "pattern" in schema:
            return _FORMED[schema.get("format", schema.get("pattern"))]
        case "object" if "properties" in schema:
            return {key: value_of(schema["properties"][key], known) for key in schema.get("required", ())}
        case "object":
            return {"key": value_of(schema["additionalProperties"], known)}
        case _:
            least, most = schema.get("minLength", 0), schema.get("maxLength")
            text = ("an answer " * (least // 10 + 1))[: most if most is not None else max(least, 9)]
            return text.rstrip().ljust(least, ".")  # DSPy takes white space off the ends


_FORMED = {
    "date": "2026-11-30",
    "date-time": "2026-11-30T09:00:00Z",
    "time": "09:00:00",
    "duration": "P1DT2H",
    "uuid": "01234567-89ab-4def-8123-456789abcdef",
    "uri": "https://example.org/a",
    "email": "someone@example.org",
    "^[A-Z]{2}[0-9]+$": "AB7",
}


def _number(schema: Mapping[str, Any]) -> float | int:
    step = schema.get("multipleOf", 1 if schema["type"] == "integer" else 0.125)
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None:
        low = 0 if high is None else high - 2 * step
    number = -(-low // step) * step + 0  # not -0.0
    if number == schema.get("exclusiveMinimum"):
        number += step
    return int(number) if schema["type"] == "integer" else number


def _answer(prompt: Prompt, values: Mapping[str, Any]) -> Answer:
    if prompt.wants_json:
        return Answer(json.dumps(values, ensure_ascii=False))
    sections = [
        f"[[ ## {name} ## ]]\n{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in values.items()
    ]
    return Answer("\n\n".join([*sections, "[[ ## completed ## ]]"]))


# HTTP


def completion(request: Request, answer: Answer) -> dict[str, Any]:
    """The chat completion object; a token for every four characters."""
    used = len(json.dumps(request.body.get("messages"))) // 4, len(answer.text) // 4
    return {
        "id": "chatcmpl-test",
        "object": "chat.completion",
        "created": 0,
        "model": request.body.get("model"),
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": answer.text or None},
                "finish_reason": answer.finish_reason,
            }
        ],
        "usage": {"prompt_tokens": used[0], "completion_tokens": used[1], "total_tokens": sum(used)},
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    lm_server: LMServer

    def process_request(self, request: Any, client_address: Any) -> None:
        """Count a connection, then serve it in a thread."""
        self.lm_server.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        """Answer a chat completion; by other providers' paths what is scripted as a body."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(json.loads(body or b"{}"), {name.lower(): value for name, value in self.headers.items()})
        self.server.lm_server.requests.append(request)
        answer = self.server.lm_server.script(request)
        if answer.body is None and not self.path.endswith("/chat/completions"):
            self.server.lm_server.strays.append(dict(self.headers.items()))
            answer = Answer(status=404, body={"error": {"message": f"no such path: {self.path}"}})
        self._send(answer, {} if answer.body is not None else completion(request, answer))

    def _send(self, answer: Answer, usual: Mapping[str, Any]) -> None:
        body = usual if answer.body is None else answer.body
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload) if not answer.endless else 1 << 40))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if answer.endless:
            self._drip(answer.pause)
        self._write(payload[: len(payload) // 2] if answer.cut else payload, answer)
        if answer.cut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _write(self, payload: bytes, answer: Answer) -> None:
        size = max(1, -(-len(payload) // answer.pieces))
        for start in range(0, len(payload), size):
            if start:
                time.sleep(answer.pause)
            self.wfile.write(payload[start : start + size])
            self.wfile.flush()

    def _drip(self, pause: float) -> NoReturn:
        while not self.server.lm_server.closing.wait(pause):
            self.wfile.write(b" ")
            self.wfile.flush()
        raise ConnectionAbortedError

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""
