"""Loads a definition from a path, text, dict or model, and reports all of its problems at once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path as FilePath
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from perdure.definitions.checks import Problem, problems_of
from perdure.definitions.hints import did_you_mean
from perdure.definitions.model import Agent, AgentNode, Retry, SetNode, ToolNode, Workflow
from perdure.definitions.plan import Plan, compile_plan
from perdure.definitions.yaml_source import Path, Source, parse_yaml
from perdure.errors import BadInput, DefinitionError

WorkflowLike = str | os.PathLike[str] | Mapping[str, Any] | Workflow
"""A path, YAML or JSON text (recognised by its line break or brace), a dict, or a Workflow."""


@dataclass(frozen=True)
class Definition:
    """A sound workflow, its plan, and the folder that its relative paths start from (None where it has none)."""

    workflow: Workflow
    plan: Plan
    base: str | None


def load(workflow: WorkflowLike, base: str | None = None) -> Definition:
    """Load and check a definition.

    Raises DefinitionError with every problem as `file:line:column: what is wrong`.
    """
    if isinstance(workflow, Workflow):
        return _checked(workflow, Source(workflow.name, None), base)
    if isinstance(workflow, Mapping):
        source = Source("definition", dict(workflow))
    elif isinstance(workflow, str) and ("\n" in workflow or workflow.lstrip().startswith("{")):
        source = parse_yaml(workflow, "definition")
    elif not isinstance(workflow, str | os.PathLike):
        raise BadInput(f"a workflow is a path, text, a dict or a Workflow, not {type(workflow).__name__}")
    else:
        path = FilePath(workflow)
        source, base = parse_yaml(_read(path), str(workflow)), base or str(path.resolve().parent)
    return _checked(_validated(source), source, base)


@lru_cache(maxsize=256)
def plan_of(text: str) -> Plan:
    """Compile a stored definition (the JSON of a Workflow), once a process."""
    return compile_plan(Workflow.model_validate_json(text))


def _read(path: FilePath) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(f"{path}: there is no such file") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None


def _validated(source: Source) -> Workflow:
    if source.data is None:
        raise DefinitionError([f"{source.name}: the file is empty; a workflow has at least 'name' and 'nodes'"])
    if not isinstance(source.data, dict):
        raise DefinitionError(
            [f"{source.place(())}: a workflow is a mapping with 'name' and 'nodes', not a {type(source.data).__name__}"]
        )
    try:
        return Workflow.model_validate(source.data)
    except ValidationError as error:
        raise DefinitionError([_line(source, *_problem(source.data, item)) for item in error.errors()]) from None


def _checked(workflow: Workflow, source: Source, base: str | None) -> Definition:
    problems: list[Problem] = problems_of(workflow)
    if problems:
        raise DefinitionError([_line(source, path, what, key=False) for path, what in problems])
    return Definition(workflow, compile_plan(workflow), base)


def _line(source: Source, path: Path, what: str, key: bool = False) -> str:
    key = key or (len(path) == 2 and path[0] in ("nodes", "agents"))  # a part with a name
    within = "" if source.values else f"at {'.'.join(map(str, path)) or 'the top'}: "
    place = source.place(path, key=key) if source.values else source.name
    return f"{place}: {within}{what}"


def _problem(data: Any, item: ErrorDetails) -> tuple[Path, str, bool]:
    """Turn one pydantic error into a path within the document, a message, and whether the key is meant."""
    path = _document_path(item["loc"])
    if item["type"] == "extra_forbidden":
        word = str(path[-1])
        return path, f"unknown key {word!r}{did_you_mean(word, _keys_at(data, path[:-1]))}", True
    if item["type"] == "missing":
        return path[:-1], f"the key {path[-1]!r} is missing", False
    name_of_key = "[key]" in item["loc"]
    if item["type"] == "string_pattern_mismatch":
        shown = path[-1] if name_of_key else item["input"]
        return (
            path,
            f"{shown!r} is not a name: letters, digits and '_' (workflow names also '-' and '.'), no digit first",
            name_of_key,
        )
    label = (
        f"{path[-1]!r}: "
        if path and isinstance(path[-1], str) and item["type"] not in ("node_kind", "duration")
        else ""
    )
    return path, label + item["msg"][:1].lower() + item["msg"][1:], name_of_key


def _document_path(loc: tuple[int | str, ...]) -> Path:
    """Drop the parts of a pydantic location that are not in the document: union tags and `[key]`."""
    if len(loc) > 2 and loc[0] == "nodes" and loc[2] in _KINDS:
        loc = (*loc[:2], *loc[3:])
    return tuple(part for part in loc if part != "[key]")


_KINDS: dict[str, type[BaseModel]] = {"agent": AgentNode, "tool": ToolNode, "set": SetNode}


def _keys_at(data: Any, path: Path) -> list[str]:
    """Return the keys that may stand in the mapping at `path`."""
    if not path:
        model: type[BaseModel] = Workflow
    elif path[-1] == "retry":
        model = Retry
    elif path[0] == "agents":
        model = Agent
    else:
        node = data["nodes"][path[1]]
        model = next(kind for key, kind in _KINDS.items() if key in node)
    return [field.alias or name for name, field in model.model_fields.items()]
