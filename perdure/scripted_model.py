"""A model for tests behind a real HTTP server: it answers from a script, or records and replays a real endpoint."""

import json
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, TypeAdapter, ValidationError

from perdure.definitions.type_words import shown_value
from perdure.definitions.yaml_source import parse_yaml
from perdure.errors import BadInput
from perdure.model_answers import Answer, answered, conversation_of, refused

Fault = Literal["timeout", "malformed", "truncated"]


@dataclass(frozen=True)
class Reply:
    """One scripted reply: given when `match` (a regular expression) is found in the conversation.

    reply: text, or any JSON value, which is sent as JSON text. calls: the calls that it asks for, each one mapping of a
    tool to its arguments (text is sent as it is, be it JSON or not). turn: only as the reply of this number, from 0.
    delay: seconds before it is sent. status: one other than 200 makes it an error with the reply as its message.
    headers: sent too. times: how often it is given; else always. fault: `timeout` never answers, `malformed` sends what
    is no JSON, `truncated` breaks off in the middle. usage: tokens in and out; counted where absent.
    """

    reply: Any = ""
    match: str = ""
    delay: float = 0.0
    status: int = 200
    headers: Mapping[str, Annotated[str, Field(coerce_numbers_to_str=True)]] = field(default_factory=dict)
    times: int | None = None
    calls: Sequence[Mapping[str, Any]] = ()
    turn: int | None = None
    fault: Fault | None = None
    usage: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Raise BadInput for what would fail only when it is given."""
        if why := _not_a_pattern(self.match):
            raise BadInput(f"'match' of a scripted reply is not a regular expression: {why}")
        if self.fault not in (None, *get_args(Fault)):
            raise BadInput(f"'fault' of a scripted reply is {self.fault!r}; there are {', '.join(get_args(Fault))}")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up: they have heard enough."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    request_queue_size = 1024  # with Python's 5 the kernel drops some of a hundred connections at once, for a second


_KEYS = frozenset({"reply", "match", "delay", "status", "headers", "times", "calls", "turn", "fault", "usage"})


class Model:
    """A model that replies from a script, on a free loopback port; use it as a context manager.

    It speaks chat completions and the Responses API, streamed and whole. The first reply that matches is given, as
    often as it may be; a conversation that none matches is refused with status 400. `requests` holds the request bodies
    so far, oldest first. Point OPENAI_BASE_URL (or Settings) at `base_url`.
    """

    def __init__(self, replies: Sequence[Reply] = (), name: str = "the script") -> None:
        self.requests: list[dict[str, Any]] = []
        self._replies = replies
        self._given: Counter[int] = Counter()
        self._name = name
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Self:
        """Load a YAML or JSON list of replies; raise BadInput where it is none."""
        return cls(_replies_in(path), str(path))

    @staticmethod
    def record(endpoint: str, file: str | PathLike[str]) -> "Model":
        """Return a model that asks a real endpoint (its URL, with `/v1`), and adds what it answers to a file.

        The key is that of the client that asks; it is not written.
        """
        from perdure.recorded_model import RecordingModel

        return RecordingModel(endpoint, Path(file))

    @staticmethod
    def replay(file: str | PathLike[str]) -> "Model":
        """Return a model that answers what was recorded; raise BadInput where the file is none of a recording."""
        from perdure.recorded_model import ReplayingModel

        return ReplayingModel(Path(file))

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, body: dict[str, Any], headers: Mapping[str, str]) -> Answer | None:
        """Return what is sent for a request; None where nothing ever is."""
        if not path.endswith(("/chat/completions", "/responses")):
            return refused(404, f"the scripted model has no {path}")
        said, turn = conversation_of(path, body)
        with self._lock:
            self.requests.append(body)
            number = len(self.requests)
            reply = self._next(said, turn)
        if reply is None:
            return refused(400, f"no reply in {self._name} matches this conversation: {said[-300:]!r}")
        self._closing.wait(reply.delay) if reply.delay else None
        if reply.fault == "timeout":
            self._closing.wait()
            return None
        if reply.status != 200:
            return refused(reply.status, str(reply.reply), reply.headers)
        return answered(path, body, reply, said, number)

    def _next(self, said: str, turn: int) -> Reply | None:
        for index, reply in enumerate(self._replies):
            fits = reply.turn in (None, turn) and (reply.times is None or self._given[index] < reply.times)
            if fits and re.search(reply.match, said):
                self._given[index] += 1
                return reply
        return None


def _handler(model: Model) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                answer = model.answer(self.path, json.loads(data), dict(self.headers))
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                answer = refused(400, f"this is no request that a model takes: {type(error).__name__}: {error}")
            if answer is None:
                self.close_connection = True
                return
            self._send(answer)

        def _send(self, answer: Answer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.data) + answer.missing))
            self.end_headers()
            self.wfile.write(answer.data)
            self.close_connection = self.close_connection or bool(answer.missing)

        def log_message(self, *_: object) -> None:
            """Say nothing: `requests` has it all."""

    return Handler


def _replies_in(path: str | PathLike[str]) -> list[Reply]:
    try:
        source = parse_yaml(Path(path).read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    replies = source.data
    if not isinstance(replies, list):
        what = "a replies file is a list such as `- {match: Write a letter, reply: Dear Ann}`"
        raise BadInput(f"{path}: {what}; 'match' is searched for in the agent's instructions and its input")
    for index, item in enumerate(replies):
        for at, what in _problems(item):
            raise BadInput(str(source.problem((index, *at), what)))
    return [_KIND.validate_python(item) for item in replies]


_KIND = TypeAdapter(Reply)


def _problems(item: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    if not isinstance(item, dict) or not item.keys() & {"reply", "calls", "fault"} or not item.keys() <= _KEYS:
        yield (), f"a reply is a mapping with 'reply' or 'calls', and perhaps {', '.join(sorted(_KEYS - {'reply'}))}"
        return
    if not isinstance(item.get("delay", 0), int | float):
        yield ("delay",), "'delay' is not a number of seconds"
    if why := _not_a_pattern(item.get("match", "")):
        yield ("match",), f"'match' is not a regular expression: {why}"
    calls = item.get("calls", [])
    if not isinstance(calls, list) or not all(isinstance(each, dict) and len(each) == 1 for each in calls):
        yield ("calls",), "'calls' is a list of mappings such as `{lookup: {order: A-1}}`"
    try:
        _KIND.validate_python(item)
    except ValidationError as error:
        for each in error.errors(include_url=False, include_context=False):
            key = str(each["loc"][0])
            yield (key,), f"{key!r}: {each['msg'][0].lower()}{each['msg'][1:]}"


def _not_a_pattern(value: Any) -> str | None:
    if not isinstance(value, str):
        return f"{shown_value(value)} is no text"
    try:
        re.compile(value)
    except re.error as error:
        return str(error)
    return None
