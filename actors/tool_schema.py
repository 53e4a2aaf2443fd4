"""What a tool takes and gives: its JSON Schemas, from type hints and docstring, and the checks of what came.

The port for who calls tools by name, as agents do: `schema_of` describes one, `validate` checks arguments beforehand;
`tools.call_async` calls it, and checks them again.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any, get_args

import msgspec
from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError, validate_call
from pydantic_core import PydanticUndefined

from perdure.actors.context import Context
from perdure.actors.tool_docs import described, said_of
from perdure.errors import BadInput

_SHOWN = 60  # characters up to which a text is shown whole: a part of a secret would not be recognised


CONTEXT = "perdure context"
"""The parameter by which tools without a signature get their context: no name that an argument could have."""


class ToolSchema(msgspec.Struct, frozen=True):
    """A tool as a caller needs it. parameters: JSON Schema of its arguments, an object; returns: of its result.

    returns: None where the tool does not say.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    returns: dict[str, Any] | None = None


class Face:
    """What a function takes and gives, as its signature says.

    model: says what it takes instead, where the function has one parameter for all; see `perdure.actors.builtin`.
    Raises what makes the signature unreadable, or pydantic's complaint about it.
    """

    def __init__(self, function: Callable[..., Any], doc: str, model: type[BaseModel] | None = None) -> None:
        self.signature = inspect.signature(function, eval_str=True)
        self.context = _context_in(self.signature)
        self._doc, self._model = doc, model
        self._takes: Any = _taker(function, self.signature, self.context, model)
        hint = self.signature.return_annotation
        self._gives = None if hint is inspect.Signature.empty else _adapter(hint)

    def bind(self, tool: str, arguments: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what to call the function with; raise BadInput that names the tool and each argument that misfits."""
        try:
            taken: tuple[tuple[Any, ...], dict[str, Any]] = self._takes(**arguments)
        except ValidationError as error:
            raise BadInput(f"tool {tool!r} was called with arguments that do not fit: {_problems(error)}") from None
        return taken

    def checked(self, tool: str, result: Any) -> Any:
        """Return the result as its type hint has it; raise BadInput that says what came and what was expected."""
        if self._gives is None:
            return result
        try:
            return self._gives.validate_python(result)
        except ValidationError as error:
            hint = inspect.formatannotation(self.signature.return_annotation)
            raise BadInput(
                f"tool {tool!r} returned what its type hint, {hint}, does not allow: {_problems(error)}"
            ) from None

    @cached_property
    def description(self) -> str:
        """What the docstring says, without its part on arguments."""
        return described(self._doc)

    @cached_property
    def parameters(self) -> dict[str, Any] | None:
        """The JSON Schema of the arguments, described by the docstring; None where it cannot be said in one."""
        try:
            schema = self._model.model_json_schema() if self._model else TypeAdapter(self._takes).json_schema()
        except (PydanticUserError, ValueError):
            return None
        if schema.get("type") != "object":
            return None
        for name, text in said_of(self._doc).items():
            if name in schema.get("properties", {}):
                schema["properties"][name].setdefault("description", text)
        return schema

    @cached_property
    def returns(self) -> dict[str, Any] | None:
        """The JSON Schema of the result; None where the function does not say, or it cannot be said in one."""
        try:
            return None if self._gives is None else self._gives.json_schema(mode="serialization")
        except (PydanticUserError, ValueError):
            return None


@dataclass(frozen=True)
class Tool:
    """A callable tool.

    face: what it takes and gives; None where only its server knows, which checks it itself. made_of: the class of which
    one instance a process is made, and called; `function` then only says what it takes.
    """

    name: str
    function: Callable[..., Any]
    is_async: bool
    face: Face | None
    made_of: type | None = None
    version: str = "1"
    tags: tuple[str, ...] = ()

    @property
    def context(self) -> str | None:
        """The name of its parameter that is annotated Context, where it has one."""
        return CONTEXT if self.face is None else self.face.context


def schema_of(tool: Tool) -> ToolSchema:
    """Return a tool as a caller needs it; one whose arguments cannot be said in JSON Schema takes any object.

    Of a tool whose server knows its schema, use `mcp_tools.described`.
    """
    face = tool.face
    if face is None:
        return ToolSchema(tool.name, "", {"type": "object"})
    return ToolSchema(tool.name, face.description, face.parameters or {"type": "object"}, face.returns)


def validate(tool: Tool, arguments: Mapping[str, Any]) -> None:
    """Raise BadInput that names the tool and each argument that does not fit, what came and what was expected."""
    refuse_context(tool, arguments)
    if tool.face is not None:
        tool.face.bind(tool.name, arguments)


def refuse_context(tool: Tool, arguments: Mapping[str, Any]) -> None:
    """Raise BadInput for an argument in the place of the context, which the engine alone gives."""
    if tool.context is not None and tool.context in arguments:
        raise BadInput(f"tool {tool.name!r} gets its {tool.context!r} from perdure; take it out of 'with'")


def shown(value: Any) -> str:
    """Return a value as an error names it: whole where it is short, else what it is, for a part might be of a secret.

    Secrets are taken out of errors by their whole values.
    """
    if isinstance(value, str | bytes) and len(value) > _SHOWN:
        return f"a text of {len(value)} characters"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple | set | frozenset):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value) if isinstance(value, str | bytes | int | float) else f"a {type(value).__name__}"


def _problems(error: ValidationError) -> str:
    found = []
    for item in error.errors(include_url=False, include_context=False):
        place = ".".join(map(str, item["loc"]))
        came = "" if item["type"].startswith("missing") or item["input"] is PydanticUndefined else item["input"]
        got = "" if item["type"].startswith("missing") else f" (got {shown(came)})"
        found.append(f"{place}: {item['msg']}{got}" if place else f"{item['msg']}{got}")
    return "; ".join(found)


def _context_in(signature: inspect.Signature) -> str | None:
    parameters = signature.parameters.values()
    return next((each.name for each in parameters if Context in (each.annotation, *get_args(each.annotation))), None)


def _taker(
    function: Callable[..., Any], signature: inspect.Signature, context: str | None, model: type[BaseModel] | None
) -> Callable[..., Any]:
    """Return a function of the same arguments, the context left out, that checks them and gives them back."""
    if model is not None:
        name = next(each for each in signature.parameters if each != context)
        return lambda **given: ((), {name: model.model_validate(given)})
    kept = [each for each in signature.parameters.values() if each.name != context]

    @wraps(function, assigned=("__module__", "__name__", "__qualname__"), updated=())
    def take(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    del take.__wrapped__
    take.__signature__ = signature.replace(parameters=kept, return_annotation=Any)  # type: ignore[attr-defined]
    take.__annotations__ = {each.name: each.annotation for each in kept if each.annotation is not each.empty}
    return validate_call(take)


def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    """Return what checks results; None for hints of which pydantic knows nothing."""
    try:
        return TypeAdapter(hint)
    except PydanticUserError:
        return None
