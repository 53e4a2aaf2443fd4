"""`play`: a workflow on the engine's own decisions, with scripted calls and in virtual time."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import msgspec

from perdure.actors import tools as tool_calls
from perdure.actors.admission import ticket_of
from perdure.actors.children import to_compensate
from perdure.actors.containers import MANY
from perdure.actors.context import Context, idempotency_key
from perdure.actors.decisions import decide
from perdure.actors.evolve import fold
from perdure.actors.inputs import (
    AdmitExecution,
    CompensateExecution,
    Continue,
    FireTimer,
    Input,
    ReportChild,
    ReportCompensation,
    ReportFailure,
    ReportLoss,
    ReportSuccess,
    StartExecution,
)
from perdure.actors.state import INITIAL, ExecutionState, NodeState, Started
from perdure.actors.transcripts import given_to
from perdure.actors.tree import known
from perdure.cluster.checks import check_id, check_input
from perdure.definitions.calls import agents_called, children_called, own_kinds_called, tools_called
from perdure.definitions.loading import WorkflowLike, load
from perdure.definitions.paths import UNDO, body_of, owner_of
from perdure.definitions.plan import Plan, compile_plan
from perdure.definitions.secret_references import revealed
from perdure.errors import BadInput
from perdure.events.vocabulary import (
    ChildRequested,
    Error,
    Event,
    ExecutionCompensated,
    ExecutionQueued,
    ExecutionSucceeded,
    NodeResumed,
    NodeScheduled,
    NodeWaiting,
    Parent,
)
from perdure.events.vocabulary import ExecutionFailed as Failed
from perdure.played import Call, Happening, Played, Sent
from perdure.scripts import Ending, Script, Told, Unscripted, as_reply, scripts_of, seconds, shown

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
"""When every played execution starts, where no other time is given."""


def play(
    workflow: WorkflowLike,
    input: Any = None,
    *,
    tools: Mapping[str, Any] | None = None,
    agents: Mapping[str, Any] | None = None,
    workflows: Mapping[str, Any] | None = None,
    tell: Sequence[Told] = (),
    until: str | float | None = None,
    begin: datetime = BEGIN,
    id: str = "played",
) -> Played:
    """Run a workflow on the engine's own decisions, in virtual time, with scripted calls; no server, no Ray.

    workflow: as for `client.start`. tools, agents: by name, the outcome of every call, a list of outcomes (one for each
    call), or a function that is called with the input; nodes of your own kinds go by `tools`, under their kind.
    workflows: the same for children; one that the definition carries is played itself where it has no script. What
    becomes of a scripted one that is to be undone stands under its name and `~undo`; without that it is undone. tell:
    signals, answers and commands, each with its time. until: stop at this time since the start; else when it ends, or
    when nothing more can happen. begin: when it starts.
    Raises DefinitionError, BadInput, and Unscripted where something is called that has no outcome.
    """
    definition = load(workflow)
    check_id(id)
    value = tool_calls.to_json(input, "the input")
    check_input(definition, value)
    called = children_called(definition.workflow)
    scripts = {
        "tool": scripts_of(
            "tool", tools or {}, tools_called(definition.workflow) | own_kinds_called(definition.workflow)
        ),
        "agent": scripts_of("agent", agents or {}, agents_called(definition.workflow)),
        "workflow": scripts_of("workflow", workflows or {}, called | {name + UNDO for name in called}),
    }
    stage = _Stage(definition.plan, Played(id, begin), scripts)
    for number, told in enumerate(tell):
        stage.expect(told, number)
    end = None if until is None else begin + timedelta(seconds=seconds(until))
    stage.run(StartExecution("start", id, definition.plan.name, definition.plan.digest, value, "played"), end)
    return stage.played


class _Stage:
    """The world that a played execution meets: its clock, the calls under way, what it is told and when."""

    def __init__(self, plan: Plan, played: Played, scripts: Mapping[str, dict[str, Script]]) -> None:
        self.plan = plan
        self.played = played
        self._scripts = scripts
        self._state: ExecutionState = INITIAL
        self._due: list[tuple[datetime, int, Any]] = []
        self._order = count()
        self._asked: dict[str, list[Told]] = {}
        self._children: dict[str, _Stage | str] = {}  # those played here, and the workflows of the others

    def expect(self, told: Told, number: int) -> None:
        """Take down what the execution is told: at its time, or when its approval is asked for."""
        if told.approval is not None and not self._has_approval(told.approval):
            raise BadInput(f"there is an answer for {told.approval!r}, and the workflow has no approval there")
        if told.seconds is None:
            self._asked.setdefault(told.approval or "", []).append(told)
        else:
            self._at(told.seconds, (told, f"tell-{number}"), since_start=True)

    def _has_approval(self, path: str) -> bool:
        try:
            return self.plan.node(path).kind == "approval"
        except (KeyError, IndexError, ValueError):  # no such node, or no such way to it
            return False

    def _at(self, after: float, what: Any, *, since_start: bool = False) -> None:
        start = self.played.began if since_start else self.played.now
        heapq.heappush(self._due, (start + timedelta(seconds=after), next(self._order), what))

    def run(self, first: Input, end: datetime | None) -> None:
        """Decide the start, then whatever is due next, until the execution ends, or nothing more is due."""
        self._decide(first)
        while self._started.outcome is None or self._is_to_be_retried():
            timer = min(((due, name) for name, due in self._started.timers.items()), default=None)
            at = min([*([self._due[0][0]] if self._due else []), *([timer[0]] if timer else [])], default=None)
            if at is None or (end is not None and at > end):
                self.played.now = max(self.played.now, end) if end is not None else self.played.now
                return
            self.played.now = max(self.played.now, at)
            if timer is not None and (not self._due or timer[0] < self._due[0][0]):
                self._decide(FireTimer(f"{timer[1]}/{timer[0].isoformat()}", self.played.id, timer[1], timer[0]))
            else:
                self._take(heapq.heappop(self._due)[2])

    def _is_to_be_retried(self) -> bool:
        return any(isinstance(told, Told) and told.retries for _, _, (told, _) in self._due)

    @property
    def _started(self) -> Started:
        assert isinstance(self._state, Started)  # noqa: S101 (the start was decided first)
        return self._state

    def _take(self, what: Any) -> None:
        """Decide a report of a call that is still wanted, or what the execution is told."""
        told, key = what
        if isinstance(told, Told):
            if told.crashes:  # what is left is the log
                self._state = fold(each.event for each in self.played.events)
            self._decide(told.make(key, self.played.id))
        elif key is None or self._is_wanted(*key):
            self._decide(told)

    def _is_wanted(self, path: str, attempt: int, resumed: int) -> bool:
        node = self._started.running.get(path)
        return node is not None and (node.attempt, node.resumed) == (attempt, resumed)

    def _decide(self, given: Input) -> None:
        events, self._state = decide(self.plan, self.played.id, self._state, given, self.played.now)
        self.played.state = self._started
        self.played.events += [Happening(self.played.now, event) for event in events]
        for event in events:
            self._follow(event)
        if len(events) > MANY and self._started.outcome is None:  # the decision was left off there
            self._decide(Continue())

    def _follow(self, event: Event) -> None:
        """Begin the calls that are decided, and answer the approvals that are asked for."""
        if isinstance(event, NodeScheduled | NodeResumed):
            node = self._started.running.get(event.node)
            if node is not None and node.attempt == event.attempt:
                self._begin(event.node, node)
        elif isinstance(event, ExecutionQueued):  # whoever is played is alone
            limit, ticket = event.claim.limit, ticket_of(self.played.id, self._started)
            self._at(0, (AdmitExecution(f"{ticket}/{limit}/admitted", self.played.id, limit, ticket), None))
        elif isinstance(event, ChildRequested):
            self._begin_child(event)
        elif isinstance(event, NodeWaiting) and self._asked.get(event.node):
            told = self._asked[event.node].pop(0)
            self._at(0, (told, f"answer-{next(self._order)}"))
        elif isinstance(event, NodeWaiting) and "compensation" in event.input:
            for command in to_compensate(self.played.id, self._started):
                if command.parent.node == event.node:
                    self._undo_child(command)

    def _begin(self, path: str, state: NodeState) -> None:
        node = self.plan.node(path)
        if node.calls == "send":
            self.played.sent.append(Sent(state.input["to"], state.input["event"], state.input["data"], self.played.now))
            return self._at(0, (ReportSuccess(path, state.attempt), (path, state.attempt, state.resumed)))
        if node.calls == "session":  # nothing is remembered beyond what is played
            return self._at(0, (ReportSuccess(path, state.attempt), (path, state.attempt, state.resumed)))
        kind = _SCRIPTED_AS.get(node.calls or "", node.calls)
        assert kind is not None  # noqa: S101 (no other node is ever at work)
        value = msgspec.to_builtins(given_to(self._started, self.plan, path, state, _shown))
        target = node.target or value["agent"]
        self.played.calls.append(Call(target, path, state.attempt, value, self.played.now))
        script = self._script(kind, target, path, value)
        agent = self.plan.agents[target] if node.calls == "agent" else None
        given = self._question(path) if node.calls == "model" else value
        ending, limit = script.next(self._context(path, state.attempt), given or {}, agent), node.timeout
        key = (path, state.attempt, state.resumed)
        if limit is not None and ending.seconds > limit:
            late = Error("Timeout", f"it took longer than {limit:g} s")
            return self._at(limit, (ReportFailure(path, state.attempt, late), key))
        value = as_reply(ending.value) if node.calls == "model" else ending.value
        report: Input = ReportSuccess(path, state.attempt, value)
        if ending.is_lost:
            report = ReportLoss(path, state.attempt)
        elif ending.error is not None:
            report = ReportFailure(path, state.attempt, ending.error)
        return self._at(ending.seconds, (report, key))

    def _question(self, path: str) -> Any:
        """Return the input of the node to whose question a model's reply belongs."""
        owner, _ = owner_of(body_of(path))
        return given_to(self._started, self.plan, owner, known(self._started, owner), _shown)

    def _context(self, path: str, attempt: int) -> Context:
        state, execution = self._started, self.played.id
        key = idempotency_key(execution, path, state.undone.get(path, 0))
        return Context(execution, path, attempt, key, state.timers.get(f"deadline/{path}"))

    def _begin_child(self, asked: ChildRequested) -> None:
        """Let a child come to its end: as its script says, or played on its own where the definition carries it."""
        self.played.calls.append(Call(asked.workflow, asked.node, asked.attempt, asked.input, self.played.now))
        workflow = self.plan.workflows.get(asked.workflow)
        if asked.workflow in self._scripts["workflow"] or workflow is None:
            self._children[asked.child] = asked.workflow
            script = self._script("workflow", asked.workflow, asked.node, asked.input)
            ending = script.next(self._context(asked.node, asked.attempt), asked.input)
        else:
            child = _Stage(compile_plan(workflow), Played(asked.child, self.played.now), self._scripts)
            self.played.children[asked.child], self._children[asked.child] = child.played, child
            parent = Parent(self.played.id, asked.node, asked.attempt, "played", asked.detached)
            plan = child.plan
            start = StartExecution("start", asked.child, plan.name, plan.digest, asked.input, "played", parent=parent)
            child.run(start, None)
            if child.played.state.outcome is None:
                return  # it waits for ever, and so does its parent
            ending = _ending(child.played)
        if not asked.detached:
            report = ReportChild(f"{asked.child}/ended", self.played.id, asked.child, ending.value, ending.error)
            self._at(ending.seconds, (report, None))

    def _undo_child(self, command: CompensateExecution) -> None:
        """Let a child be undone: as the script of that says, or played on where it was played itself."""
        child, call, id_ = self._children[command.execution], command.parent, command.execution
        if isinstance(child, str):
            name = child + UNDO
            self.played.calls.append(Call(name, call.node, call.attempt, {"child": id_}, self.played.now))
            script = self._scripts["workflow"].get(name)
            context = self._context(call.node, call.attempt)
            ending = script.next(context, {"child": id_}) if script is not None else Ending()
        else:
            child.played.now = self.played.now
            child.run(command, None)
            outcome = child.played.state.outcome
            if outcome is None:
                return  # it waits for ever, and so does its parent
            error = outcome.error if isinstance(outcome, ExecutionCompensated) else _ending(child.played).error
            ending = Ending(error=error, seconds=(child.played.now - self.played.now).total_seconds())
        report = ReportCompensation(f"{command.id}/done", self.played.id, call.node, id_, ending.error)
        self._at(ending.seconds, (report, None))

    def _script(self, kind: str, name: str, path: str, given: Any) -> Script:
        script = self._scripts[kind].get(name)
        if script is None:
            raise Unscripted(
                f"node {path!r} calls {kind} {name!r} with {shown(given)}, and nothing is scripted for it; "
                f"give play(..., {kind}s={{{name!r}: ...}}) an outcome, a list of outcomes, or a function"
            )
        return script


_SCRIPTED_AS = {"custom": "tool", "model": "agent"}
"""What a call is scripted as, where that is not what it is: nodes of own kinds by their names, an agent's replies."""


def _shown(value: Any, pointers: Iterable[str]) -> Any:
    return revealed(value, pointers, "[secret {}]".format)


def _ending(child: Played) -> Ending:
    seconds = child.took.total_seconds()
    match child.state.outcome:
        case ExecutionSucceeded(output):
            return Ending(output, seconds=seconds)
        case Failed(error):
            return Ending(error=error, seconds=seconds)
    return Ending(error=Error(child.status.capitalize(), f"child {child.id!r} was {child.status}"), seconds=seconds)
