"""Workflows built in Python: `dag` and `statechart` make the same definitions that YAML does."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel

from perdure.definitions.loading import load
from perdure.definitions.model import Workflow
from perdure.definitions.references import Reference
from perdure.errors import BadInput

_NAMING = frozenset({"needs", "then", "default", "from", "target", "initial"})
"""Keys under which a node or a state stands for its name."""


class Named:
    """A node or a state: it stands for its name in `needs`, `then`, `target` and the like."""

    def __init__(self, name: str) -> None:
        self.name = name


def plain(value: Any, key: str = "") -> Any:
    """Return a value as the document has it: expressions as text, models as mappings, nodes by their names."""
    if isinstance(value, Reference):
        return str(value)
    if isinstance(value, Named):
        if key in _NAMING:
            return value.name
        raise BadInput(f"{value.name!r} is a node or state, and {key!r} takes a value; write its `.output`")
    if isinstance(value, type) and issubclass(value, BaseModel):
        return value.model_json_schema()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if isinstance(value, Mapping):
        return {name: plain(item, str(name)) for name, item in value.items()}
    return [plain(item, key) for item in value] if isinstance(value, list | tuple) else value


def parts(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return keyword arguments as keys: without the `_` that keeps `if`, `with` and `as` from being Python's words."""
    named = {key.removesuffix("_"): value for key, value in given.items() if value is not None}
    return {key: plain(value, key) for key, value in named.items()}


class Node(Named):
    """A node that was added; `output` reads its result."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.output = Reference(f"nodes.{name}.output")


class Body:
    """Nodes in the making, under a key of the part around them.

    Every method adds a node of that kind; further arguments are the keys of the definition (`if_`, `needs`, `retry`).
    """

    def __init__(self, owner: dict[str, Any], key: str) -> None:
        self._owner = owner
        self._key = key

    def __enter__(self) -> Self:
        """Return the body itself: `with` only shows in the program what stands within what."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: a body may be added to until the workflow is built."""

    def _added(self, name: str, kind: str, value: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        nodes = self._owner.setdefault(self._key, {})
        if name in nodes:
            raise BadInput(f"there is a node {name!r} already; give this one another name")
        nodes[name] = {kind: plain(value, kind), **parts(given)}
        added: dict[str, Any] = nodes[name]
        return added

    def _plainly(self, name: str, kind: str, value: Any, given: Mapping[str, Any]) -> Node:
        self._added(name, kind, value, given)
        return Node(name)

    def agent(self, name: str, agent: str, **given: Any) -> Node:
        """Add a node that asks an agent."""
        return self._plainly(name, "agent", agent, given)

    def tool(self, name: str, tool: str, **given: Any) -> Node:
        """Add a node that calls a tool."""
        return self._plainly(name, "tool", tool, given)

    def workflow(self, name: str, workflow: Any, **given: Any) -> Node:
        """Add a node that runs another workflow: its name, or a mapping with options."""
        return self._plainly(name, "workflow", workflow, given)

    def statechart(self, name: str, statechart: Any, **given: Any) -> Node:
        """Add a node that runs a statechart: one from `perdure.statechart`, or a mapping."""
        chart = getattr(statechart, "chart", statechart)
        return self._plainly(name, "statechart", chart, given)

    def wait(self, name: str, wait: Any, **given: Any) -> Node:
        """Add a node that waits: a duration, or a mapping."""
        return self._plainly(name, "wait", wait, given)

    def approval(self, name: str, approval: Mapping[str, Any], **given: Any) -> Node:
        """Add a node that asks a person."""
        return self._plainly(name, "approval", approval, given)

    def switch(self, name: str, *cases: tuple[Any, Any], default: Any = None, **given: Any) -> Node:
        """Add a node that chooses: cases are pairs of a condition and the nodes that run then."""
        arms = [{"when": when, "then": then} for when, then in cases]
        return self._plainly(name, "switch", parts({"cases": arms, "default": default}), given)

    def aggregate(self, name: str, aggregate: Mapping[str, Any], **given: Any) -> Node:
        """Add a node that makes one result of many."""
        return self._plainly(name, "aggregate", aggregate, given)

    def set(self, name: str, value: Any, **given: Any) -> Node:
        """Add a node that computes a value."""
        return self._plainly(name, "set", value, given)

    def fail(self, name: str, fail: Any, **given: Any) -> Node:
        """Add a node that fails: a message, or a mapping."""
        return self._plainly(name, "fail", fail, given)

    def custom(self, name: str, kind: str, config: Any, **given: Any) -> Node:
        """Add a node of a kind of your own."""
        return self._plainly(name, "custom", {kind: config}, given)

    def foreach(self, name: str, items: Any, *, as_: str | None = None, index: str | None = None,
                max_parallel: int | None = None, batch: int | None = None, on_failure: Any = None,
                **given: Any) -> "Each":  # fmt: skip
        """Add a node that repeats its body, or a single call, for each item."""
        options = {"items": items, "as": as_, "index": index, "max_parallel": max_parallel, "batch": batch}
        return Each(name, self._added(name, "foreach", parts({**options, "on_failure": on_failure}), given), "foreach")

    def loop(self, name: str, *, max_iterations: int, while_: Any = None, until: Any = None, initial: Any = None,
             **given: Any) -> "Each":  # fmt: skip
        """Add a node that repeats its body, or a single call, while or until a condition holds."""
        options = {"max_iterations": max_iterations, "while": while_, "until": until, "initial": initial}
        return Each(name, self._added(name, "loop", parts(options), given), "loop")

    def parallel(self, name: str, *, join: Any = None, **given: Any) -> "Parallel":
        """Add a node with branches side by side."""
        return Parallel(name, self._added(name, "parallel", parts({"branches": {}, "join": join}), given))


class Each(Node, Body):
    """A foreach or loop: a node, and the body within it; `item`, `index` and `last` read what a pass is about."""

    def __init__(self, name: str, node: dict[str, Any], kind: str) -> None:
        Node.__init__(self, name)
        Body.__init__(self, node, "do")
        self._options = node[kind]
        self.item = Reference(self._options.get("as", "item"))
        self.index = Reference("loop.index" if kind == "loop" else self._options.get("index", "index"))
        self.last = Reference("loop.last")

    def result(self, value: Any) -> None:
        """Say what a pass gives; the outputs of its last nodes where this is not said."""
        self._options["output"] = plain(value, "output")


class Branch(Body):
    """A branch of a parallel."""

    def result(self, value: Any) -> None:
        """Say what the branch gives; the outputs of its last nodes where this is not said."""
        self._owner["output"] = plain(value, "output")


class Parallel(Node):
    """A parallel node, to which branches are added."""

    def __init__(self, name: str, node: dict[str, Any]) -> None:
        super().__init__(name)
        self._branches = node["parallel"]["branches"]

    def branch(self, name: str, **call: Any) -> Branch:
        """Add a branch: a body of nodes, or a single call where `agent`, `tool` or `workflow` is given."""
        if name in self._branches:
            raise BadInput(f"there is a branch {name!r} already; give this one another name")
        self._branches[name] = parts(call)
        return Branch(self._branches[name], "do")


class Built:
    """What DAGs and statecharts have in common: the data that expressions read, and `build`."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self.input, self.execution = Reference("input"), Reference("execution")
        self.secrets, self.error = Reference("secrets"), Reference("error")
        self.output: Any = None
        self.on_failure, self.on_cancel = Body(document, "on_failure"), Body(document, "on_cancel")
        self.finally_ = Body(document, "finally")

    def build(self, base: str | None = None) -> Workflow:
        """Return the workflow; raise DefinitionError with every problem. base: the folder of its tool files."""
        return load({**self._document, **parts({"output": self.output})}, base).workflow


class Dag(Built, Body):
    """A workflow of nodes in the making; `output` is what an execution of it gives."""

    def __init__(self, name: str, given: Mapping[str, Any]) -> None:
        Built.__init__(self, {"name": name, **parts(given)})
        Body.__init__(self, self._document, "nodes")


def dag(name: str, **given: Any) -> Dag:
    """Begin a workflow of nodes; further arguments are keys of the definition: `input`, `agents`, `tools`, `limits`."""
    return Dag(name, given)
