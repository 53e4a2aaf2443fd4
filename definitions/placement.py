"""Placement: where a tool runs and what its process needs, and what is wrong with what a definition says of it."""

from collections.abc import Iterator
from dataclasses import dataclass

from perdure.definitions.agent_parts import AgentTool
from perdure.definitions.calls import tool_places
from perdure.definitions.findings import Finding
from perdure.definitions.model import Workflow
from perdure.definitions.nodes import AggregateNode, CustomNode, ForeachNode, LoopNode, Node, ToolNode
from perdure.definitions.parts import Pool, Resources, RuntimeEnv, Tool
from perdure.definitions.places import PLACEMENT, bodies_of
from perdure.definitions.plan import Plan
from perdure.definitions.plan_nodes import PlanNode
from perdure.definitions.yaml_source import Path

_POOLED = ("resources", "pool", "runtime_env")


@dataclass(frozen=True)
class Placement:
    """What a call asks of its node actor; what a node says comes before what its tool says, and then the workflow."""

    resources: Resources
    pool: Pool
    runtime_env: RuntimeEnv

    @property
    def asks(self) -> bool:
        """Whether it asks for what only a node actor gives."""
        return self != NOTHING


NOTHING = Placement(Resources(), Pool(), RuntimeEnv())


def placement_of(plan: Plan, node: PlanNode) -> Placement:
    """Return what a node that calls a tool asks of its node actor."""
    model, tool = node.model, plan.tools.get(node.target)
    return Placement(
        model.resources or (tool and tool.resources) or NOTHING.resources,
        model.pool or (tool and tool.pool) or NOTHING.pool,
        model.runtime_env or (tool and tool.runtime_env) or plan.runtime_env or NOTHING.runtime_env,
    )


def runtime_envs(workflow: Workflow) -> Iterator[tuple[RuntimeEnv, Path]]:
    """Yield every runtime environment of a workflow, and of those that it carries, with its place."""
    if workflow.runtime_env is not None:
        yield workflow.runtime_env, ("runtime_env",)
    for index, tool in enumerate(workflow.tools):
        if isinstance(tool, Tool) and tool.runtime_env is not None:
            yield tool.runtime_env, ("tools", index, "runtime_env")
    yield from ((tool.runtime_env, (*at, "runtime_env")) for tool, at in _of_agents(workflow) if tool.runtime_env)
    for body in bodies_of(workflow):
        for node, at in body.nodes.values():
            if node.runtime_env is not None:
                yield node.runtime_env, (*at, "runtime_env")
    for name, child in workflow.workflows.items():
        yield from ((env, ("workflows", name, *at)) for env, at in runtime_envs(child))


def tools_elsewhere(workflow: Workflow) -> set[str]:
    """Return the tools whose code may be only where they run, for a runtime environment brings it there."""
    if workflow.runtime_env is not None:
        return {name for _, name in tool_places(workflow)}
    found = {tool.name for tool in workflow.tools if isinstance(tool, Tool) and tool.runtime_env is not None}
    found |= {tool.target for tool, _ in _of_agents(workflow) if tool.runtime_env is not None}
    for body in bodies_of(workflow):
        for node, _ in body.nodes.values():
            called = node.aggregate if isinstance(node, AggregateNode) else node
            if node.runtime_env is not None and (name := getattr(called, "tool", None)):
                found.add(name)
    return found.union(*map(tools_elsewhere, workflow.workflows.values()))


def tool_placement_findings(workflow: Workflow) -> Iterator[Finding]:
    """Yield what is wrong with what the workflow and its tools say of node actors."""
    if workflow.runtime_env is not None:
        yield from _env_findings(workflow.runtime_env, ("runtime_env",))
    for index, tool in enumerate(workflow.tools):
        if isinstance(tool, Tool):
            yield from _part_findings(tool, ("tools", index))
    for called, at in _of_agents(workflow):
        yield from _part_findings(called, at)
        if called.run_on == "loop":
            yield from _kept_out(called, at)


def _of_agents(workflow: Workflow) -> Iterator[tuple[AgentTool, Path]]:
    """Yield the tools of agents with their places."""
    for name, agent in workflow.agents.items():
        for index, tool in enumerate(agent.tools):
            if tool.tool is not None:
                yield tool, ("agents", name, "tools", index)


def placement_findings(node: Node, at: Path) -> Iterator[Finding]:
    """Yield what is wrong with what a node says of where it runs."""
    if isinstance(node, ForeachNode | LoopNode) and node.tool is not None:
        return  # it is its call's, and checked there
    if not _calls_tool(node):
        for key in PLACEMENT:
            value = getattr(node, key)
            if value is not None and not (key == "run_on" and value == "loop"):
                inner = " and set it on the nodes under 'do'" if isinstance(node, ForeachNode | LoopNode) else ""
                where = "on the event loop" if isinstance(node, CustomNode) else "by no tool"
                what = f"only a tool runs in a node actor, and this node is done {where}; take {key!r} out{inner}"
                yield Finding((*at, key), what, key=True)
        return
    yield from _part_findings(node, at)
    if node.run_on == "loop":
        yield from _kept_out(node, at)


def _kept_out(part: Node | AgentTool, at: Path) -> Iterator[Finding]:
    for key in _POOLED:
        if getattr(part, key) is not None:
            what = f"{key!r} is for a node actor, and 'run_on: loop' keeps the node out of one; take one of them out"
            yield Finding((*at, key), what, key=True)


def _calls_tool(node: Node) -> bool:
    if isinstance(node, AggregateNode):
        return node.aggregate.tool is not None
    return isinstance(node, ToolNode)


def _part_findings(part: Node | Tool | AgentTool, at: Path) -> Iterator[Finding]:
    if part.resources is not None:
        yield from _resource_findings(part.resources, (*at, "resources"))
    pool = part.pool
    if pool is not None and pool.max is not None and pool.min > pool.max:
        yield Finding((*at, "pool", "min"), f"the smallest size, {pool.min}, is over the largest, {pool.max}")
    if part.runtime_env is not None:
        yield from _env_findings(part.runtime_env, (*at, "runtime_env"))


def _resource_findings(resources: Resources, at: Path) -> Iterator[Finding]:
    for key, value in (("num_cpus", resources.num_cpus), ("num_gpus", resources.num_gpus)):
        if value is not None and value > 1 and value != int(value):
            yield Finding(
                (*at, key), f"{value:g} is no whole number; Ray shares one by a part of 1, and more by whole ones"
            )
    for name, value in resources.custom.items():
        if name in ("CPU", "GPU", "memory"):
            key = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}[name]
            yield Finding((*at, "custom", name), f"{name!r} is Ray's own; write {key!r} under 'resources'", key=True)
        elif value < 0:
            yield Finding((*at, "custom", name), f"{value:g} of {name!r} is less than nothing")


def _env_findings(env: RuntimeEnv, at: Path) -> Iterator[Finding]:
    folders: dict[Path, str] = {("py_modules", index): each for index, each in enumerate(env.py_modules)}
    if env.working_dir is not None:
        folders["working_dir",] = env.working_dir
    for where, written in folders.items():
        if "://" in written:
            what = f"{written!r} is an address; give a folder or a file beside the definition, which is stored with it"
            yield Finding((*at, *where), what)
    for index, each in enumerate(env.pip):
        if "${{" in each:
            yield Finding((*at, "pip", index), "requirements are not computed; write them out")
    for name, value in env.env_vars.items():
        if "${{" in value:
            what = "environment variables are not computed; give the tool a secret by 'with'"
            yield Finding((*at, "env_vars", name), what)
