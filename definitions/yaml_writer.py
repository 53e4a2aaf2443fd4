"""Writes workflows and other data as YAML that reads back as the same, and that people like to read."""

from collections.abc import Iterable
from typing import Any

import yaml

from perdure.definitions.model import Workflow
from perdure.definitions.nodes import KINDS, written_kinds
from perdure.definitions.yaml_source import CoreSchemaLoader

_CORE = CoreSchemaLoader.yaml_implicit_resolvers
_BREAKS = frozenset("\r\x85\u2028\u2029")
"""Characters that YAML 1.1 takes for the end of a line, and 1.2 does not."""
_FIRST = ("description", "needs", "if", *KINDS, "with", "do")
"""The keys of a node that people read first."""


class _Dumper(yaml.SafeDumper):
    """Quotes strings that YAML 1.1 or 1.2 would read as something else, and writes text of several lines as a block."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own class-level registry)
        first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *_CORE.get(first, [])]
        for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_CORE}
    }

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)  # lists stand below their keys


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if _BREAKS.intersection(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _text)


def to_yaml(workflow: Workflow) -> str:
    """Return YAML without what is there by default, in the order that people read in; it loads with the same digest."""
    data = workflow.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return data_to_yaml(_workflow(data))


def data_to_yaml(value: Any) -> str:
    """Return JSON data as YAML that reads back as the same data."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100_000)


def _workflow(data: dict[str, Any]) -> dict[str, Any]:
    for key in {"nodes", "on_failure", "on_cancel", "finally"} & data.keys():
        data[key] = _body(data[key])
    for name, child in data.get("workflows", {}).items():
        data["workflows"][name] = _workflow(child)
    return data


def _body(nodes: dict[str, Any]) -> dict[str, Any]:
    return {name: _node(node) for name, node in nodes.items()}


def _node(node: dict[str, Any]) -> dict[str, Any]:
    for part in (node, *_branches(node)):
        if part.get("do") is not None:
            part["do"] = _body(part["do"])
    kind = next(iter(node.get("custom", {})), None)
    written = {key: node[key] for key in dict.fromkeys((*_FIRST, *node)) if key in node}
    return _renamed(written, "custom", kind) if kind in written_kinds() else written


def _renamed(node: dict[str, Any], key: str, kind: Any) -> dict[str, Any]:
    return {kind if each == key else each: value[kind] if each == key else value for each, value in node.items()}


def _branches(node: dict[str, Any]) -> Iterable[dict[str, Any]]:
    branches: dict[str, Any] = node["parallel"]["branches"] if "parallel" in node else {}
    return branches.values()
