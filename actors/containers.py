"""Nodes with bodies of their own: how foreach, loop, parallel and statechart begin, go on, and come to their end."""

from perdure.actors.draft import Draft
from perdure.actors.state import NodeState
from perdure.definitions.nodes import Foreach, ForeachNode, LoopNode, Parallel, ParallelNode, StatechartNode, Threshold
from perdure.definitions.paths import inner_body
from perdure.definitions.places import items_of, share_of
from perdure.events.vocabulary import Error, NodeOpened

MANY = 1000
"""Events in one decision after which no more bodies begin in it: the rest follows in the next one."""


def open_foreach(draft: Draft, path: str, attempt: int) -> None:
    """Begin to go through the items. Raises ExpressionError."""
    foreach = _foreach(draft, path)
    items = items_of(path, draft.value(path, "foreach/items"))
    if foreach.batch > 1:
        items = [items[start : start + foreach.batch] for start in range(0, len(items), foreach.batch)]
    draft.emit(NodeOpened(path, attempt, items))
    draft.later("progress", path)


def open_loop(draft: Draft, path: str, attempt: int) -> None:
    """Begin the first pass, or none. Raises ExpressionError."""
    draft.emit(NodeOpened(path, attempt, draft.value(path, "loop/initial")))
    draft.later("progress", path)


def open_parallel(draft: Draft, path: str, attempt: int) -> None:
    """Begin all branches."""
    draft.emit(NodeOpened(path, attempt))
    for branch in draft.plan.node(path).bodies:
        draft.begin_body(inner_body(path, branch))


def open_chart(draft: Draft, path: str, attempt: int) -> None:
    """Enter a statechart, whose input is the node's. Raises ExpressionError."""
    draft.emit(NodeOpened(path, attempt, draft.value(path, "with")))
    draft.begin_body(inner_body(path, "chart"))


def progress(draft: Draft, path: str) -> Error | None:
    """Go on with an open node: begin what is next, or let it succeed. Returns the error of which it fails.

    Raises ExpressionError, of which it fails too.
    """
    node = draft.state.node(path)
    if node is None or node.status != "open" or path in draft.state.undoing or draft.over:
        return None
    model = draft.plan.node(path).model
    if isinstance(model, ForeachNode):
        return _foreach_goes_on(draft, path)
    if isinstance(model, LoopNode):
        return _loop_goes_on(draft, path)
    if isinstance(model, StatechartNode):
        if (chart := node.bodies["chart"]).status == "succeeded":
            draft.finish(path, node.attempt, chart.output)
        return None
    assert isinstance(model, ParallelNode)  # noqa: S101 (no other node is ever open)
    return _parallel_goes_on(draft, path, model)


def stops_whole(draft: Draft, path: str) -> bool:
    """Say whether an error in one of its bodies is the end of an open node, with all the others."""
    model = draft.plan.node(path).model
    if isinstance(model, ForeachNode):
        return model.foreach.on_failure == "stop"
    return not isinstance(model, ParallelNode) or model.parallel.join == "all"


def _foreach_goes_on(draft: Draft, path: str) -> Error | None:
    foreach, node = _foreach(draft, path), draft.state.node(path)
    assert node is not None  # noqa: S101 (progress has looked)
    items = node.input
    if isinstance(foreach.on_failure, Threshold) and node.failed > share_of(foreach.on_failure.threshold, len(items)):
        last = max((body.error.message for body in node.bodies.values() if body.error), default="")
        return Error("TooManyFailed", f"{node.failed} of {len(items)} items failed; one of them: {last}")
    if node.ended == len(items):
        results = [node.bodies[str(number)].output for number in range(len(items))]
        draft.finish(path, node.attempt, results)
        return None
    begun = len(node.bodies)
    while not draft.state.paused and begun < len(items) and begun - node.ended < foreach.max_parallel:
        if len(draft.events) > MANY:
            return None
        draft.begin_body(inner_body(path, str(begun)))
        begun += 1
    return None


def _loop_goes_on(draft: Draft, path: str) -> Error | None:
    node, model = draft.state.node(path), draft.plan.node(path).model
    assert node is not None  # noqa: S101 (progress has looked)
    assert isinstance(model, LoopNode)  # noqa: S101 (progress has looked)
    loop, passes = model.loop, node.ended
    if str(passes) in node.bodies:
        return None  # the current pass is not over
    last = node.bodies[str(passes - 1)].output if passes else node.input
    if loop.until is not None and passes:
        if draft.condition(path, "loop/until", loop={"index": passes - 1, "last": last}):
            draft.finish(path, node.attempt, last)
            return None
    elif loop.while_ is not None and not draft.condition(path, "loop/while", loop={"index": passes, "last": last}):
        draft.finish(path, node.attempt, last)
        return None
    if passes >= loop.max_iterations:
        if loop.while_ is None and loop.until is None:
            draft.finish(path, node.attempt, last)
            return None
        return Error("LoopExhausted", f"loop {path!r} is not done after {passes} passes, its max_iterations")
    if not draft.state.paused and len(draft.events) <= MANY:
        draft.begin_body(inner_body(path, str(passes)), _outworn(node, passes))
    return None


def _outworn(node: NodeState, passes: int) -> str:
    """Return the key of the pass before the last, where neither of them has anything that may be compensated."""
    last, outworn = (node.bodies.get(str(passes - back)) for back in (1, 2))
    unread = last is not None and outworn is not None and not last.nodes and not outworn.nodes
    return str(passes - 2) if unread else ""


def _parallel_goes_on(draft: Draft, path: str, model: ParallelNode) -> Error | None:
    node = draft.state.node(path)
    assert node is not None  # noqa: S101 (progress has looked)
    branches, wanted = model.parallel.branches, _wanted(model.parallel)
    won = _winners(draft, path, node, model.parallel)
    if len(won) < wanted:
        errors = [body.error for name in branches if (body := node.bodies.get(name)) and body.error]
        return errors[0] if len(branches) - node.failed < wanted else None
    if node.failed == len(branches) - wanted:
        draft.finish(path, node.attempt, {name: node.bodies[name].output for name in won})
    else:
        draft.later("lose", path)
    return None


def losers(draft: Draft, path: str) -> list[str]:
    """Return the bodies of a decided parallel that are still to be ended; none where it is not decided."""
    node, model = draft.state.node(path), draft.plan.node(path).model
    if node is None or node.status != "open" or not isinstance(model, ParallelNode) or path in draft.state.undoing:
        return []
    won = _winners(draft, path, node, model.parallel)
    left = [name for name in node.bodies if name not in won and node.bodies[name].status != "failed"]
    lost = sorted(inner_body(path, name) for name in left) if len(won) == _wanted(model.parallel) else []
    return [body for body in lost if body not in draft.state.undoing]


def _wanted(parallel: Parallel) -> int:
    return len(parallel.branches) if parallel.join == "all" else 1 if parallel.join == "any" else parallel.join


def _winners(draft: Draft, path: str, node: NodeState, parallel: Parallel) -> list[str]:
    """Return the branches that count, in the written order; not those that have lost and are being compensated."""
    done = [name for name in parallel.branches if name in node.bodies and node.bodies[name].status == "succeeded"]
    return [name for name in done if inner_body(path, name) not in draft.state.undoing][: _wanted(parallel)]


def _foreach(draft: Draft, path: str) -> Foreach:
    model = draft.plan.node(path).model
    assert isinstance(model, ForeachNode)  # noqa: S101 (by its kind)
    return model.foreach
