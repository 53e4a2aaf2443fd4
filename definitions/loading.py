"""Loads a definition from a path, text, dict or model, and reports all of its problems at once."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from perdure.definitions.checks import findings_of
from perdure.definitions.expressions import parsed_once
from perdure.definitions.findings import Finding
from perdure.definitions.includes import read_source, read_text
from perdure.definitions.json_values import to_json_value
from perdure.definitions.messages import problems_in
from perdure.definitions.model import Workflow
from perdure.definitions.plan import Plan, compile_plan
from perdure.definitions.salvage import remains_of
from perdure.definitions.yaml_source import Source, parse_yaml
from perdure.errors import BadInput, DefinitionError, Problem

_NAMES_FILES = re.compile(r"\binclude\b|\.(ya?ml|json)\b")

WorkflowLike = str | os.PathLike[str] | Mapping[str, Any] | Workflow
"""A path, YAML or JSON text (recognised by its line break or brace), a dict, or a Workflow."""


@dataclass(frozen=True)
class Definition:
    """A sound workflow, its plan, the folder that its relative paths start from (None: none), and its warnings."""

    workflow: Workflow
    plan: Plan
    base: str | None
    warnings: tuple[Problem, ...] = ()


def load(workflow: WorkflowLike, base: str | None = None, *, strict: bool = False) -> Definition:
    """Load and check a definition; `strict` makes errors of warnings.

    Raises DefinitionError with every problem, each with file, line and column; BadInput for what cannot be read.
    """
    if isinstance(workflow, Workflow):
        return _checked(workflow, Source(workflow.name, None), base, strict=strict)
    if isinstance(workflow, Mapping):
        source = Source("definition", _plain(workflow))
    elif isinstance(workflow, str) and ("\n" in workflow or workflow.lstrip().startswith("{")):
        source = parse_yaml(workflow, "definition")
    elif not isinstance(workflow, str | os.PathLike):
        raise BadInput(f"a workflow is a path, text, a dict or a Workflow, not {type(workflow).__name__}")
    else:
        return _load_file(FilePath(workflow), str(workflow), base, strict=strict)
    return _checked(_validated(source), source, base, strict=strict)


def _load_file(path: FilePath, shown: str, base: str | None, *, strict: bool) -> Definition:
    text, base = read_text(path, shown), base or str(path.resolve().parent)
    if _NAMES_FILES.search(text):
        source = read_source(path, shown)
        return _checked(_validated(source), source, base, strict=strict)
    return _load_text(text, shown, base, strict)


@lru_cache(maxsize=16)
def _load_text(text: str, shown: str, base: str, strict: bool) -> Definition:
    """Load a file that names no other; a driver starts the same one again and again."""
    source = parse_yaml(text, shown)
    return _checked(_validated(source), source, base, strict=strict)


@lru_cache(maxsize=16)
def plan_of(text: str) -> Plan:
    """Compile a stored definition (the JSON of a Workflow), once for all that ask at the same time."""
    return compile_plan(Workflow.model_validate_json(text))


def _plain(workflow: Mapping[str, Any]) -> Any:
    try:
        return to_json_value(dict(workflow))
    except ValueError as error:
        raise BadInput(f"the definition is not JSON data: {error}") from None


def _validated(source: Source) -> Workflow:
    if source.data is None:
        raise DefinitionError([Problem(source.name, "the file is empty; a workflow has at least 'name' and 'nodes'")])
    if not isinstance(source.data, dict):
        what = f"a workflow is a mapping with 'name' and 'nodes', not a {type(source.data).__name__}"
        raise DefinitionError([source.problem((), what)])
    if source.data.get("include"):
        raise DefinitionError([source.problem(("include",), "only a definition in a file can include others")])
    try:
        return Workflow.model_validate(source.data)
    except ValidationError as error:
        problems = problems_in(error, source, Workflow)
        if remains := remains_of(source.data, error):
            problems += [_problem(source, each) for each in findings_of(remains.workflow) if remains.leaves(each)]
        raise DefinitionError(sorted(problems, key=_place)) from None


def _problem(source: Source, finding: Finding) -> Problem:
    return source.problem(finding.path, finding.message, key=finding.key, warning=finding.warning)


def _checked(workflow: Workflow, source: Source, base: str | None, *, strict: bool) -> Definition:
    with parsed_once():
        return _compiled(workflow, source, base, strict=strict)


def _compiled(workflow: Workflow, source: Source, base: str | None, *, strict: bool) -> Definition:
    problems = sorted((_problem(source, each) for each in findings_of(workflow)), key=_place)
    if strict:
        problems = [replace(problem, severity="error") for problem in problems]
    if any(problem.severity == "error" for problem in problems):
        raise DefinitionError(problems)
    return Definition(workflow, compile_plan(workflow), base, tuple(problems))


def _place(problem: Problem) -> tuple[str, int, int]:
    return problem.file, problem.line, problem.column
