"""A real endpoint between a workflow and its tests: recorded to a file once, replayed from it ever after."""

import json
import threading
from collections import defaultdict
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from perdure.errors import BadInput
from perdure.model_answers import Answer, refused
from perdure.scripted_model import Model

_TIMEOUT = 600  # seconds


class RecordingModel(Model):
    """Asks a real endpoint, and writes each request with its answer to a file; keys are not written."""

    def __init__(self, endpoint: str, file: Path) -> None:
        super().__init__(name=f"the recording {file}")
        self._endpoint = endpoint.rstrip("/")
        self._file = file
        self._writing = threading.Lock()
        try:
            file.open("a").close()
        except OSError as error:
            self._server.server_close()
            raise BadInput(f"{file}: cannot be written: {error.strerror}") from None

    def answer(self, path: str, body: dict[str, Any], headers: Mapping[str, str]) -> Answer | None:
        """Return what the endpoint answers, whole."""
        self.requests.append(body)
        sent = {"Content-Type": "application/json"}
        sent |= {name: value for name, value in headers.items() if name.lower() == "authorization"}
        place = path.partition("/v1")[2] or path
        request = Request(self._endpoint + place, json.dumps(body).encode(), sent)  # noqa: S310 (the user's own URL)
        try:
            try:
                response = urlopen(request, timeout=_TIMEOUT)  # noqa: S310 (the user's own URL)
            except HTTPError as error:
                response = error
            with response:
                status, given, text = response.status, response.headers, response.read().decode()
        except (OSError, HTTPException, UnicodeDecodeError) as error:  # URLError is one of these
            return refused(502, f"the endpoint {self._endpoint} cannot be reached: {getattr(error, 'reason', error)}")
        kind, wait = given.get("Content-Type", ""), given.get("Retry-After")
        entry = {"path": place, "request": body, "status": status, "type": kind, "answer": text}
        entry |= {"retry_after": wait} if wait else {}
        with self._writing, self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        return _answer(entry)


class ReplayingModel(Model):
    """Answers as it was recorded: the same request gets the same answers, in their order, the last one ever after."""

    def __init__(self, file: Path) -> None:
        found: dict[str, list[Answer]] = defaultdict(list)
        for number, line in enumerate(_lines(file), 1):
            try:
                each = json.loads(line)
                found[_key(each["path"], each["request"])].append(_answer(each))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise BadInput(f"{file}:{number}: this is no line of a recording; record it anew") from None
        super().__init__(name=f"the recording {file}")
        self._answers = found

    def answer(self, path: str, body: dict[str, Any], headers: Mapping[str, str]) -> Answer | None:
        """Return what was recorded for this request."""
        self.requests.append(body)
        with self._lock:
            answers = self._answers.get(_key(path.partition("/v1")[2] or path, body))
            if answers:
                return answers.pop(0) if len(answers) > 1 else answers[0]
        return refused(400, f"{self._name} has no such request; record it anew: {json.dumps(body)[-300:]}")


def _answer(entry: dict[str, Any]) -> Answer:
    wait = {"Retry-After": entry["retry_after"]} if "retry_after" in entry else {}
    return Answer(entry["status"], entry["answer"].encode(), {"Content-Type": entry["type"], **wait})


def _key(path: str, body: dict[str, Any]) -> str:
    return f"{path} {json.dumps(body, sort_keys=True)}"


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
