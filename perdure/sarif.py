"""Problems as SARIF 2.1.0, the form in which code hosts and CI show findings at their lines."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

from perdure import __version__
from perdure.errors import Problem

RULE = "definition"


def sarif_log(problems: list[Problem]) -> dict[str, Any]:
    """Return a SARIF log with one result per problem; relative files stay relative to where the command ran."""
    rule = {"id": RULE, "shortDescription": {"text": "A workflow definition that perdure would refuse, or doubts."}}
    driver = {"name": "perdure", "version": __version__, "rules": [rule]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(each) for each in problems],
    }
    return {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}


def _result(problem: Problem) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": {"uri": _uri(problem.file)}}
    if problem.line:
        place["region"] = {"startLine": problem.line, "startColumn": max(problem.column, 1)}
    return {
        "ruleId": RULE,
        "level": problem.severity,
        "message": {"text": problem.message},
        "locations": [{"physicalLocation": place}],
    }


def _uri(file: str) -> str:
    path = Path(file)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())
