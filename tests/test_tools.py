"""Tools: found by name, file and import path; called with checked arguments; errors that name the mend."""

import asyncio
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from perdure import tool
from perdure.actors.tools import call, call_async, find, locate, to_json
from perdure.errors import BadInput, ToolNotFound


@tool(name="test.double")
def double(number: int) -> int:
    return number * 2


@tool
async def shout(text: str, times: int = 1) -> str:
    return text.upper() * times


def places(*names: str, files: tuple[str, ...] = (), base: Path | None = None, shared: bool = False) -> dict[str, str]:
    return locate(names, files, str(base) if base else None, shared=shared)


def test_a_registered_tool_is_found_by_its_name_and_stays_callable() -> None:
    place = places("test.double")["test.double"]
    assert place == f"{__name__}:double"
    assert call(find(place), {"number": 4}) == 8
    assert double(4) == 8


def test_a_tool_is_found_by_import_path() -> None:
    place = "json:dumps"
    assert places(place) == {place: place}
    assert call(find(place), {"obj": [1]}) == "[1]"


def test_a_tool_is_found_in_the_files_of_the_definition(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text("from perdure import tool\n@tool\ndef here(): return 'file'\n")
    place = places("here", files=("./tools.py",), base=tmp_path)["here"]
    assert place == f"{tmp_path}/tools.py:here"
    assert call(find(place), {}) == "file"


def test_two_definitions_may_use_the_same_name_for_their_own_tools(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tools.py").write_text(f"from perdure import tool\n@tool\ndef who(): return {folder!r}\n")
    found = [places("who", files=("tools.py",), base=tmp_path / folder)["who"] for folder in ("one", "two")]
    assert [call(find(place), {}) for place in found] == ["one", "two"]


def test_an_async_tool_is_known_as_one() -> None:
    tool = find(f"{__name__}:shout")
    assert tool.is_async
    assert not find("json:dumps").is_async


async def test_an_async_tool_within_a_plain_decorator_is_awaited() -> None:
    @wraps(shout)
    def decorated(*args: Any, **named: Any) -> Any:
        return shout(*args, **named)

    decorated.__qualname__ = "decorated"
    globals()["decorated"] = decorated
    found = find(f"{__name__}:decorated")
    assert not found.is_async, "nothing shows it before the call"
    assert await asyncio.to_thread(call, found, {"text": "hi"}) == "HI"
    assert await call_async(found, {"text": "hi"}) == "HI"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test.duble", "there is no tool 'test.duble'; did you mean 'test.double'?"),
        ("nothing_like_it", "known are: "),
        ("no_such_module:f", "there is no module 'no_such_module'"),
        ("json:nothing", "json has no tool 'nothing'"),
    ],
)
def test_an_unknown_tool_is_named_with_a_way_on(name: str, expected: str) -> None:
    with pytest.raises(ToolNotFound) as caught:
        places(name)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("content", "error", "expected"),
    [
        (None, ToolNotFound, "tools.py does not exist"),
        ("1 / 0", BadInput, "cannot be loaded: ZeroDivisionError"),
        ("def (", BadInput, "cannot be loaded: SyntaxError"),
    ],
)
def test_a_tool_file_that_cannot_be_loaded_says_why(
    tmp_path: Path, content: str | None, error: type[Exception], expected: str
) -> None:
    if content is not None:
        (tmp_path / "tools.py").write_text(content)
    with pytest.raises(error, match=expected):
        places("x", files=("tools.py",), base=tmp_path)


def test_a_tool_of_the_main_script_cannot_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    def mine() -> int:
        return 1

    mine.__module__, mine.__qualname__ = "__main__", "mine"
    tool(mine)
    with pytest.raises(BadInput, match="move it into a module"):
        places("mine", shared=True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "number: Missing required argument"),
        ({"number": "x"}, "number: Input should be a valid integer"),
        ({"number": 1, "extra": 2}, "extra: Unexpected keyword argument"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        call(find(f"{__name__}:double"), arguments)
    assert expected in str(caught.value)
    assert "'test.double'" in str(caught.value)


def test_results_become_json() -> None:
    class Model(BaseModel):
        a: int

    @dataclass
    class Data:
        b: list[Model]

    assert to_json(Data([Model(a=1)]), "it") == {"b": [{"a": 1}]}
    assert to_json({1: (2, {3})}, "it") == {"1": [2, [3]]}
    with pytest.raises(BadInput, match="not JSON data"):
        to_json(object(), "it")
