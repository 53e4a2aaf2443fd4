"""The compiled form of a workflow that the engine runs: nodes in order, their needs, parsed templates, digest."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from perdure.definitions.model import Agent, AgentNode, Node, Retry, SetNode, ToolNode, Workflow
from perdure.definitions.templates import Template, compile_condition, compile_template, expressions

Kind = Literal["agent", "tool", "set"]


@dataclass(frozen=True, slots=True)
class PlanNode:
    """One compiled node. `needs` holds the written and the inferred ones; `timeout` is in seconds."""

    name: str
    kind: Kind
    target: str
    needs: tuple[str, ...]
    dependants: tuple[str, ...]
    reads: frozenset[str]
    condition: Template
    template: Template
    retry: Retry
    timeout: float | None
    run_on: Literal["loop", "actor"] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled workflow; `nodes` is in topological order, `output_reads` are the nodes that `output` names."""

    name: str
    digest: str
    nodes: Mapping[str, PlanNode]
    agents: Mapping[str, Agent]
    output: Template
    output_reads: frozenset[str]
    leaves: tuple[str, ...]


ONE_TRY = Retry(attempts=1)


def digest_of(workflow: Workflow) -> str:
    """Return the digest that pins a definition: `sha256:` and the hash of its canonical JSON."""
    parts = workflow.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def compile_plan(workflow: Workflow) -> Plan:
    """Compile a workflow that `problems_of` found sound."""
    needs = {name: needs_of(node) for name, node in workflow.nodes.items()}
    dependants: dict[str, list[str]] = {name: [] for name in needs}
    for name, wanted in needs.items():
        for need in wanted:
            dependants[need].append(name)
    nodes = {
        name: _compile_node(name, workflow.nodes[name], needs[name], dependants[name])
        for name in _ordered(needs, dependants)
    }
    output = compile_template(workflow.output)
    return Plan(
        name=workflow.name,
        digest=digest_of(workflow),
        nodes=nodes,
        agents=workflow.agents,
        output=output,
        output_reads=reads_of(output),
        leaves=tuple(name for name in nodes if not dependants[name]),
    )


def needs_of(node: Node) -> tuple[str, ...]:
    """Return the written needs and then those that the node's expressions read."""
    read = sorted(reads_of(*_templates(node)))
    return tuple(dict.fromkeys([*node.needs, *read]))


def reads_of(*templates: Template) -> frozenset[str]:
    """Return the names of the nodes that the templates' expressions read."""
    return frozenset(name for template in templates for part in expressions(template) for name in part.nodes)


def find_cycle(needs: Mapping[str, tuple[str, ...]]) -> list[str] | None:
    """Return one cycle as the names along it, its first name again at the end, or None."""
    done: set[str] = set()
    for start in needs:
        trail: dict[str, Iterator[str]] = {}
        current: str | None = start
        while current is not None:
            if current not in trail:
                trail[current] = iter(needs[current] if current not in done else ())
            following = next(trail[current], None)
            if following is None:
                done.add(current)
                trail.pop(current)
                current = next(reversed(trail), None)
            elif following in trail:
                names = list(trail)
                return [*names[names.index(following) :], following]
            else:
                current = following if following in needs else current
    return None


def _templates(node: Node) -> tuple[Template, Template]:
    condition = compile_condition(node.if_) if node.if_ is not None else None
    return condition, compile_template(node.set if isinstance(node, SetNode) else node.with_)


def _compile_node(name: str, node: Node, needs: tuple[str, ...], dependants: list[str]) -> PlanNode:
    condition, template = _templates(node)
    work = node if isinstance(node, AgentNode | ToolNode) else None
    return PlanNode(
        name=name,
        kind="agent" if isinstance(node, AgentNode) else "tool" if isinstance(node, ToolNode) else "set",
        target=node.agent if isinstance(node, AgentNode) else node.tool if isinstance(node, ToolNode) else "",
        needs=needs,
        dependants=tuple(dependants),
        reads=reads_of(condition, template),
        condition=condition,
        template=template,
        retry=(work.retry if work else None) or ONE_TRY,
        timeout=work.timeout if work else None,
        run_on=work.run_on if work else None,
    )


def _ordered(needs: Mapping[str, tuple[str, ...]], dependants: Mapping[str, list[str]]) -> Iterator[str]:
    """Yield names so that needs come first (Kahn's algorithm), in the written order where that is free."""
    missing = {name: len(wanted) for name, wanted in needs.items()}
    ready = [name for name, count in missing.items() if not count]
    for name in ready:
        yield name
        for dependant in dependants[name]:
            missing[dependant] -= 1
            if not missing[dependant]:
                ready.append(dependant)
