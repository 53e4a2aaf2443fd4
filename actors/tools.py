"""Tools: how functions are registered, found by name, file or import path, and called with checked arguments."""

import asyncio
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from threading import Lock
from types import MethodType, ModuleType
from typing import Any, TypeVar, get_args, overload

from pydantic import ValidationError, validate_call

from perdure.actors.context import Context
from perdure.definitions.json_values import to_json_value
from perdure.definitions.parts import Tool as Declared
from perdure.errors import BadInput, ToolNotFound

Function = TypeVar("Function", bound=Callable[..., Any])

_registered: dict[str, str] = {}
_in_file: ContextVar[bool] = ContextVar("in_file", default=False)
_moved: dict[str, str] = {}
_making = Lock()


@dataclass(frozen=True)
class Tool:
    """A callable tool: `function` checks its arguments against their type hints before it runs.

    context: the name of its parameter that is annotated Context, where it has one. made_of: the class of which one
    instance a process is made, and called; `function` then only says what it takes.
    """

    name: str
    function: Callable[..., Any]
    is_async: bool
    context: str | None = None
    made_of: type | None = None


@overload
def tool(function: Function) -> Function: ...
@overload
def tool(*, name: str) -> Callable[[Function], Function]: ...
def tool(function: Function | None = None, *, name: str | None = None) -> Any:
    """Register a function as a tool, under its own name or the given one; it stays callable as it is.

    Of a class, each process makes one instance, without arguments, and calls that: what is slow to load is loaded once.
    """

    def register(target: Function) -> Function:
        tool_name = name or target.__name__
        target.__perdure_tool__ = tool_name  # type: ignore[attr-defined]
        if not _in_file.get():  # a definition's own files are searched by file, so that two may share a name
            _registered[tool_name] = f"{target.__module__}:{target.__qualname__}"
        return target

    return register(function) if function is not None else register


def locate(
    names: Iterable[str],
    given: Iterable[str | Declared],
    base: str | None,
    *,
    shared: bool,
    elsewhere: Container[str] = (),
) -> dict[str, str]:
    """Return where each named tool's code is, as `module:attribute` or `/path/file.py:attribute`.

    given: the definition's tool files, relative to `base`, and its declared tools. shared: other processes must find
    the code too. elsewhere: tools whose modules need not be here.
    Raises ToolNotFound or BadInput.
    """
    by_name: dict[str, str] = {}
    for file in given:
        if not isinstance(file, str):
            by_name[file.name] = file.call
            continue
        path = Path(base or ".", file).resolve()
        by_name.update(
            {tool_name: f"{path}:{attribute}" for tool_name, attribute in _tools_in(_load_file(str(path))).items()}
        )
    places = {}
    for name in names:
        place = by_name.get(name) or _registered.get(name) or (name if ":" in name else None)
        if place is None:
            raise ToolNotFound(_not_found(name, [*by_name, *_registered]))
        if shared and place.startswith("__main__:"):
            raise BadInput(
                f"tool {name!r} is defined in the script that was run, where workers cannot import it; "
                "move it into a module"
            )
        try:
            find(place)
        except ToolNotFound:
            if name not in elsewhere:
                raise
        places[name] = place
    return places


@lru_cache(maxsize=1024)
def find(place: str) -> Tool:
    """Return the tool at a place that `locate` gave; raise ToolNotFound when it is not there."""
    home, _, attribute = place.rpartition(":")
    module = _load_file(home) if home.endswith(".py") else _import(home, place)
    target: Any = module
    for part in attribute.split("."):
        target = getattr(target, part, None)
    if not callable(target):
        raise ToolNotFound(f"{home} has no tool {attribute!r}")
    name, made_of = getattr(target, "__perdure_tool__", attribute), target if isinstance(target, type) else None
    if made_of is not None:
        target = _call_of(made_of, place)
    try:
        checked = validate_call(target)
        context = context_parameter(target)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise BadInput(f"the tool {place!r} cannot be called with checked arguments: {reason}") from None
    return Tool(name, checked, inspect.iscoroutinefunction(target), context, made_of)


def _call_of(kind: type, place: str) -> Callable[..., Any]:
    """Return what calls an instance of a tool class, bound to nothing that runs; raise BadInput for a class without."""
    if not any("__call__" in vars(each) for each in kind.__mro__):
        raise BadInput(f"the tool {place!r} is a class without __call__; give it one, or give a function")
    try:
        parameters = inspect.signature(kind).parameters.values()
    except ValueError:  # written in C
        parameters = {}.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if needed:
        raise BadInput(f"the tool {place!r} is made without arguments; give {', '.join(needed)} of __init__ a default")
    return MethodType(kind.__call__, kind)


def function_of(tool: Tool) -> Callable[..., Any]:
    """Return what to call: of a class its one instance in this process, made now if need be.

    Raises what its __init__ raises.
    """
    if tool.made_of is None:
        return tool.function
    with _making:
        function: Callable[..., Any] | None = vars(tool.made_of).get("__perdure_instance__")
        if function is None:
            function = validate_call(tool.made_of().__call__)
            tool.made_of.__perdure_instance__ = function  # type: ignore[attr-defined]
        return function


def moved(path: str, to: str) -> None:
    """Say where a tool file is that other machines know by this path; one that is there itself is used as it is."""
    _moved[path] = to


def context_parameter(function: Callable[..., Any]) -> str | None:
    """Return the parameter that is annotated Context, or Context | None; raise what makes the signature unreadable."""
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    return next((each.name for each in parameters if Context in (each.annotation, *get_args(each.annotation))), None)


def why_silent(name: str, place: str) -> str | None:
    """Say why the tool at a place cannot give a heartbeat; None where it can."""
    if find(place).context is not None:
        return None
    return (
        f"tool {name!r} cannot give a heartbeat: annotate a parameter of it perdure.Context, and call its heartbeat()"
    )


def call(tool: Tool, arguments: Mapping[str, Any], context: Context | None = None) -> Any:
    """Call a tool in this thread and return its JSON result; an `async def` one runs on an event loop of its own.

    Raises BadInput for arguments that do not fit, and whatever the tool raises.
    """
    with _naming(tool):
        result = function_of(tool)(**_given(tool, arguments, context))
        result = asyncio.run(result) if tool.is_async else result
    return to_json(result, f"the result of tool {tool.name!r}")


async def call_async(tool: Tool, arguments: Mapping[str, Any], context: Context | None = None) -> Any:
    """Call a tool on the running event loop and return its JSON result; raises as `call` does."""
    with _naming(tool):
        result = function_of(tool)(**_given(tool, arguments, context))
        result = await result if tool.is_async else result
    return to_json(result, f"the result of tool {tool.name!r}")


def _given(tool: Tool, arguments: Mapping[str, Any], context: Context | None) -> Mapping[str, Any]:
    """Return the arguments with the context, which the engine alone gives."""
    if tool.context is None:
        return arguments
    if tool.context in arguments:
        raise BadInput(f"tool {tool.name!r} gets its {tool.context!r} from perdure; take it out of 'with'")
    return {**arguments, tool.context: context}


@contextmanager
def _naming(tool: Tool) -> Iterator[None]:
    """Turn pydantic's complaint about the arguments into one that names the tool and each argument."""
    try:
        yield
    except ValidationError as error:
        if error.title not in (getattr(tool.function, "__name__", None), getattr(tool.function, "__qualname__", None)):
            raise  # about something else, inside the tool
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise BadInput(f"tool {tool.name!r} was called with arguments that do not fit: {problems}") from None


def to_json(value: Any, what: str) -> Any:
    """Return a value as JSON data; raise BadInput that names what it is where it cannot be written."""
    try:
        return to_json_value(value)
    except ValueError as error:
        raise BadInput(f"{what} is not JSON data: {error}") from None


def _import(module: str, place: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ToolNotFound(f"tool {place!r}: there is no module {error.name!r} on the import path") from None
    except (Exception, SystemExit) as error:
        raise BadInput(f"tool {place!r}: importing {module!r} failed: {type(error).__name__}: {error}") from error


@lru_cache(maxsize=256)
def _load_file(path: str) -> ModuleType:
    if not Path(path).is_file():
        path = _moved.get(path, path)
    if not Path(path).is_file():
        raise ToolNotFound(f"the tool file {path} does not exist")
    if not path.endswith(".py"):
        raise BadInput(f"the tool file {path} is no Python file: its name must end in .py")
    name = "perdure_tools_" + path.translate(str.maketrans("/.-", "___"))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # noqa: S101 (a path that ends in .py always has a spec)
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that dataclasses and pickles inside find their module
    token = _in_file.set(True)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise BadInput(f"the tool file {path} cannot be loaded: {type(error).__name__}: {error}") from error
    finally:
        _in_file.reset(token)
    return module


def _tools_in(module: ModuleType) -> dict[str, str]:
    """Return the registered names in a module and the attributes that hold them."""
    return {
        vars(value)["__perdure_tool__"]: attribute
        for attribute, value in vars(module).items()
        if "__perdure_tool__" in getattr(value, "__dict__", ())
    }


def _not_found(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(sorted(known)) or 'none'}."
    mend = "Name its file under 'tools:', or give an import path such as package.module:function."
    return f"there is no tool {name!r}; {hint} {mend}"
