"""Help for testing workflows: `play` in virtual time, and a scripted model behind a real HTTP server.

`play` runs a definition on the engine's own decisions with scripted calls; see docs/testing.md. `ScriptedModel` speaks
the chat-completions protocol, for tests with a real client.
"""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from os import PathLike
from pathlib import Path
from typing import Any, Self

from perdure.definitions.type_words import shown_value
from perdure.definitions.yaml_source import parse_yaml
from perdure.errors import BadInput
from perdure.played import Call, NotEnded, Played
from perdure.playing import play
from perdure.scripts import (
    Unscripted,
    approve,
    calls,
    cancel,
    change_input,
    complete_node,
    crash,
    extend_deadline,
    fails,
    lost,
    pause,
    reject,
    resume,
    retry,
    signal,
    skip_node,
    takes,
    terminate,
)

__all__ = [
    "Call",
    "NotEnded",
    "Played",
    "Reply",
    "ScriptedModel",
    "Unscripted",
    "approve",
    "calls",
    "cancel",
    "change_input",
    "complete_node",
    "crash",
    "extend_deadline",
    "fails",
    "lost",
    "pause",
    "play",
    "reject",
    "resume",
    "retry",
    "signal",
    "skip_node",
    "takes",
    "terminate",
]


@dataclass(frozen=True)
class Reply:
    """One scripted reply: given when `match` (a regular expression) is found in the conversation.

    reply: text, or any JSON value, which is sent as JSON text. delay: seconds before it is sent. status: one other than
    200 makes it an error with the reply as its message. headers: sent too. times: how often it is given; else always.
    """

    reply: Any
    match: str = ""
    delay: float = 0.0
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int | None = None


class ScriptedModel:
    """A model that replies from a script, on a free loopback port; use it as a context manager.

    The first reply that matches is given, as often as it may be; a conversation that none matches is refused with
    status 400. `requests` holds the request bodies so far, oldest first. Point OPENAI_BASE_URL (or Settings) at
    `base_url`.
    """

    def __init__(self, replies: Sequence[Reply], name: str = "the script") -> None:
        self.requests: list[dict[str, Any]] = []
        self._replies = replies
        self._given: Counter[int] = Counter()
        self._name = name
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, answer, headers = model._answer(self.path, body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Say nothing: `requests` has it all."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Self:
        """Load a YAML or JSON list of replies; raise BadInput where it is none."""
        try:
            source = parse_yaml(Path(path).read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
        replies = source.data
        if not isinstance(replies, list):
            what = "a replies file is a list such as `- {match: Write a letter, reply: Dear Ann}`"
            raise BadInput(f"{path}: {what}; 'match' is searched for in the agent's instructions and its input")
        for index, item in enumerate(replies):
            if not isinstance(item, dict) or "reply" not in item or not item.keys() <= {"match", "reply", "delay"}:
                what = "a reply is a mapping with 'reply', and perhaps 'match' and 'delay'"
                raise BadInput(str(source.problem((index,), what)))
            if not isinstance(item.get("delay", 0), int | float):
                raise BadInput(str(source.problem((index, "delay"), "'delay' is not a number of seconds")))
            if why := _not_a_pattern(item.get("match", "")):
                what = f"'match' is not a regular expression: {why}"
                raise BadInput(str(source.problem((index, "match"), what)))
        return cls([Reply(**item) for item in replies], str(path))

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any], Mapping[str, str]]:
        if not path.endswith("/chat/completions"):
            return 404, {"error": {"message": f"the scripted model has no {path}"}}, {}
        self.requests.append(body)
        text = "\n".join(str(message.get("content")) for message in body["messages"])
        for index, reply in enumerate(self._replies):
            if re.search(reply.match, text) and (reply.times is None or self._given[index] < reply.times):
                self._given[index] += 1
                time.sleep(reply.delay)
                if reply.status != 200:
                    return reply.status, {"error": {"message": reply.reply}}, reply.headers
                return 200, _completion(body, reply.reply, len(text), len(self.requests)), reply.headers
        return 400, {"error": {"message": f"no reply in {self._name} matches this conversation: {text[-300:]!r}"}}, {}


def _not_a_pattern(value: Any) -> str | None:
    if not isinstance(value, str):
        return f"{shown_value(value)} is no text"
    try:
        re.compile(value)
    except re.error as error:
        return str(error)
    return None


def _completion(body: dict[str, Any], reply: Any, asked: int, number: int) -> dict[str, Any]:
    content = reply if isinstance(reply, str) else json.dumps(reply, ensure_ascii=False)
    usage = {"prompt_tokens": asked // 4, "completion_tokens": len(content) // 4}
    return {
        "id": f"scripted-{number}",
        "object": "chat.completion",
        "created": 0,
        "model": body.get("model", "scripted"),
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
        "usage": {**usage, "total_tokens": sum(usage.values())},
    }
