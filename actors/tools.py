"""Tools: how functions are registered, found by name, file or import path, and called with checked arguments."""

import asyncio
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping
from contextvars import ContextVar
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from threading import Lock
from types import MethodType, ModuleType
from typing import Any, NamedTuple, TypeVar, overload

from perdure.actors import mcp_tools, ray_functions
from perdure.actors.context import Context
from perdure.actors.outside import Reach
from perdure.actors.tool_schema import Face, Tool, refuse_context
from perdure.actors.tool_sources import Shelf, builtin_tools, check_name, entry_point_tools, named, split
from perdure.definitions.builtin_tools import BUILTINS
from perdure.definitions.json_values import to_json_value
from perdure.definitions.mcp_servers import McpServer
from perdure.definitions.parts import Tool as Declared
from perdure.errors import BadInput, PerdureError, ToolNotFound

Function = TypeVar("Function")  # a function, a class, or a remote function of Ray's


class _Label(NamedTuple):
    """What a tool was registered as."""

    name: str
    version: str = "1"
    tags: tuple[str, ...] = ()


_registered = Shelf()
_in_file: ContextVar[bool] = ContextVar("in_file", default=False)
_moved: dict[str, str] = {}
_making = Lock()


@overload
def tool(function: Function) -> Function: ...
@overload
def tool(
    *, name: str | None = None, version: str = "1", tags: Iterable[str] = ()
) -> Callable[[Function], Function]: ...
def tool(
    function: Function | None = None, *, name: str | None = None, version: str = "1", tags: Iterable[str] = ()
) -> Any:
    """Register a function as a tool, under its own name or the given one; it stays callable as it is.

    Of a class, each process makes one instance, without arguments, and calls that: what is slow to load is loaded once.
    version: numbers with points; a plain name means the newest, `name@2` that one. tags: for who looks for tools.
    Raises BadInput for a name or a version that no tool can have.
    """

    def register(target: Function) -> Function:
        of: Any = ray_functions.plain(target) if ray_functions.is_remote(target) else target
        label = _Label(name or of.__name__, version, tuple(tags))
        check_name(label.name, version)
        target.__perdure_tool__ = label  # type: ignore[attr-defined]
        if not _in_file.get():  # a definition's own files are searched by file, so that two may share a name
            file = getattr(sys.modules.get(of.__module__), "__file__", None) or of.__module__
            place = f"{of.__module__}:{of.__qualname__}"
            _registered.put(label.name, version, place, f"{file}:{of.__qualname__}")
        return target

    return register(function) if function is not None else register


def locate(
    names: Iterable[str],
    given: Iterable[str | Declared],
    base: str | None,
    *,
    shared: bool,
    elsewhere: Container[str] = (),
    installed: Iterable[str] = (),
    mcp: Mapping[str, McpServer] | None = None,
    reach: Reach | None = None,
) -> dict[str, str]:
    """Return where each named tool's code is, as `module:attribute` or `/path/file.py:attribute`.

    given: the definition's tool files, relative to `base`, and its declared tools. shared: other processes must find
    the code too. elsewhere: tools whose modules need not be here. installed: the setting `tools`. mcp: the definition's
    MCP servers; reach: has those of the settings.
    Raises ToolNotFound or BadInput.
    """
    own, known = own_tools(given, base), None
    places = {}
    for name in names:
        place = own.take(*named(name)) or mcp_tools.place_of(name, mcp or {}, base, reach.mcp if reach else {})
        place = place or _registered.take(*named(name))
        if place is None:
            known = known or shelves(installed)
            place = next(filter(None, (each.take(*named(name)) for each in known)), None)
        place = place or (name if ":" in name else None)
        if place is None:
            raise ToolNotFound(_not_found(name, [each for shelf in (own, *(known or ())) for each in shelf.names()]))
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


def shelves(installed: Iterable[str] = ()) -> list[Shelf]:
    """Return the tools that no definition names, in the order in which they are looked through.

    Those registered in this process or by modules of the setting `tools`, those in its files, entry points, builtins.
    """
    files, modules = split(installed)
    for module in modules:
        if ":" not in module:
            _import(module, module)
    of_files = own_tools(files, None)
    for place in (each for each in modules if ":" in each):
        of_files.put(find(place).name, find(place).version, place)
    points = entry_point_tools(
        _import, _version_at
    )  # before the registered ones are looked at: some only register theirs
    return [_registered, of_files, points, builtin_tools()]


def _version_at(place: str) -> str:
    try:
        return find(place).version
    except PerdureError:  # told when that tool is called: it must not keep others from being found
        return "1"


def own_tools(given: Iterable[str | Declared], base: str | None) -> Shelf:
    """Return the tools of files, relative to `base`, and those that are declared; raise ToolNotFound or BadInput."""
    shelf = Shelf()
    for file in given:
        if isinstance(file, str):
            path = Path(base or ".", file).resolve()
            for label, attribute in _tools_in(_load_file(str(path))).items():
                shelf.put(label.name, label.version, f"{path}:{attribute}")
    for each in given:
        if not isinstance(each, str):
            shelf.only(each.name, each.call)
    return shelf


@lru_cache(maxsize=1024)
def find(place: str) -> Tool:
    """Return the tool at a place that `locate` gave; raise ToolNotFound when it is not there."""
    if place.startswith(mcp_tools.PREFIX):
        return mcp_tools.tool_at(place)
    home, _, attribute = place.rpartition(":")
    module = _load_file(home) if home.endswith(".py") else _import(home, place)
    target: Any = module
    for part in attribute.split("."):
        target = getattr(target, part, None)
    if not callable(target):
        raise ToolNotFound(f"{home} has no tool {attribute!r}")
    label = getattr(target, "__perdure_tool__", None) or _Label(attribute)
    remote = ray_functions.is_remote(target)
    signed = ray_functions.plain(target) if remote else target
    made_of, doc = target if isinstance(target, type) else None, inspect.getdoc(signed) or ""
    if made_of is not None:
        target = signed = _call_of(made_of, place)
        doc = f"{doc}\n\n{inspect.getdoc(target) or ''}"
    builtin = next((each for each in BUILTINS.values() if each.place == place), None)
    try:
        face = Face(signed, builtin.description if builtin else doc, builtin.takes if builtin else None)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise BadInput(f"the tool {place!r} cannot be called with checked arguments: {reason}") from None
    name = builtin.name if builtin else label.name
    target = ray_functions.calling(target) if remote else target
    return Tool(name, target, inspect.iscoroutinefunction(target), face, made_of, label.version, label.tags)


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
            function = tool.made_of().__call__
            tool.made_of.__perdure_instance__ = function  # type: ignore[attr-defined]
        return function


def moved(path: str, to: str) -> None:
    """Say where a tool file is that other machines know by this path; one that is there itself is used as it is."""
    _moved[path] = to


def why_silent(name: str, place: str) -> str | None:
    """Say why the tool at a place cannot give a heartbeat; None where it can."""
    if find(place).context is not None:
        return None
    return (
        f"tool {name!r} cannot give a heartbeat: annotate a parameter of it perdure.Context, and call its heartbeat()"
    )


def call(tool: Tool, arguments: Mapping[str, Any], context: Context | None = None) -> Any:
    """Call a tool in this thread and return its JSON result; what it awaits runs on an event loop of its own.

    Raises BadInput for arguments that do not fit, and whatever the tool raises.
    """
    args, named_args = _bound(tool, arguments, context)
    result = function_of(tool)(*args, **named_args)
    return _result(tool, asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result)


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


async def call_async(tool: Tool, arguments: Mapping[str, Any], context: Context | None = None) -> Any:
    """Call a tool on the running event loop and return its JSON result; raises as `call` does."""
    args, named_args = _bound(tool, arguments, context)
    result = function_of(tool)(*args, **named_args)
    return _result(tool, await result if inspect.isawaitable(result) else result)


def _bound(tool: Tool, arguments: Mapping[str, Any], context: Context | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the checked arguments with the context, which the engine alone gives."""
    refuse_context(tool, arguments)
    args, kwargs = ((), dict(arguments)) if tool.face is None else tool.face.bind(tool.name, arguments)
    return args, kwargs if tool.context is None else {**kwargs, tool.context: context}


def _result(tool: Tool, result: Any) -> Any:
    checked = result if tool.face is None else tool.face.checked(tool.name, result)
    return to_json(checked, f"the result of tool {tool.name!r}")


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
    name = ray_functions.OF_FILE + path.translate(str.maketrans("/.-", "___"))
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


def _tools_in(module: ModuleType) -> dict[_Label, str]:
    """Return what a module registers and the attributes that hold it."""
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
