"""The execution actor: a mailbox, the one transact loop, and the reconcile that makes the world match the state."""

import asyncio
import logging
from datetime import UTC, datetime

from perdure.actors.alarms import Alarms
from perdure.actors.attempts import Attempts
from perdure.actors.compensated import refusal
from perdure.actors.containers import MANY
from perdure.actors.decisions import Decision, decide
from perdure.actors.folded import Folded
from perdure.actors.inputs import (
    CompensateExecution,
    Continue,
    Control,
    Input,
    Recover,
    StartExecution,
    is_command,
)
from perdure.actors.loading import load
from perdure.actors.log_context import about
from perdure.actors.mailbox import Mailbox
from perdure.actors.outgoing import Outgoing
from perdure.actors.saving import Saving
from perdure.actors.state import ExecutionState, Started
from perdure.actors.surroundings import Surroundings
from perdure.definitions.plan import Plan
from perdure.errors import BelongsElsewhere, Deposed, LogUnavailable, VersionConflict
from perdure.events.entry import Entry, Recorded
from perdure.events.ids import new_id
from perdure.events.subjects import partition_of
from perdure.events.vocabulary import CommandRefused, Event, ExecutionStarted

_log = logging.getLogger("perdure.execution")

_PAUSE, _LONGEST_PAUSE = 0.5, 5.0  # seconds between tries while the log is away

MAX_INPUTS = 256


class Execution:
    """One execution as a logical actor: tell it inputs, and run it until it ends or has nothing to wait for here.

    new: it is not looked up in the log first, for it seems not to have begun; its first append finds out.
    """

    def __init__(self, execution: str, surroundings: Surroundings, *, new: bool = False) -> None:
        self.id = execution
        self.closed = False
        self._leaving = False
        self._around = surroundings
        self._mailbox = Mailbox()
        self._folded = Folded() if new else None
        self._plan: Plan | None = None
        self._attempts = Attempts(execution, surroundings, self._mailbox.put)
        self._alarms = Alarms(execution, surroundings.timers, surroundings.near, surroundings.fence, self._mailbox.put)
        self._saving = Saving(execution, surroundings.snapshots)
        post = surroundings.post
        self._outgoing = Outgoing(execution, post, self._mailbox.put, surroundings.limits) if post else None

    async def tell(self, given: Input) -> bool:
        """Hand over a command; return when it is decided and recorded, or False when this actor has closed."""
        if self.closed:
            return False
        decided: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._mailbox.put(given, decided)
        return await decided

    def hurry(self) -> None:
        """Leave at once when it is quiet: others wait for its place. Its near timers are left to the inbox then."""
        self._mailbox.wake()
        if self._alarms.near and self._mailbox.empty:
            self._mailbox.put(Continue())

    def leave(self) -> None:
        """Begin nothing more, and leave as soon as what is under way has come to its end and is recorded."""
        self._leaving = True
        self._attempts.leave()
        self._mailbox.put(Continue())

    async def run(self, *first: Input) -> bool:
        """Recover what was under way, then decide inputs and reconcile, until the execution ends or can be left.

        Returns whether there is such an execution: False where it never began. Raises Deposed when a newer owner has
        taken over, BelongsElsewhere when its workflow asks for another process than this, and LogUnavailable when it
        cannot be loaded; what was decided is appended for as long as the log is away.
        """
        waiting: list[asyncio.Future[bool]] = []
        about(execution=self.id, partition=partition_of(self.id))
        try:
            await self._transact([Recover()])
            inputs: list[Input] = list(first)
            while True:
                if not await self._take(inputs):
                    return False  # nothing was decided: were it to begin now, what it was told would be lost
                for decided in waiting:
                    if not decided.done():
                        decided.set_result(True)
                waiting = []
                await self._reconcile()
                if not self._can_be_left():
                    inputs, waiting = await self._drain()
                elif self._outgoing is not None and self._outgoing.busy:
                    inputs, waiting = [], []
                    await self._outgoing.sent()
                elif await self._stays_quiet():
                    return True
                else:
                    inputs, waiting = await self._drain()
        except BaseException as error:
            self._fail_tellers(waiting, error)
            raise
        finally:
            self.closed = True
            self._turn_away(waiting)
            self._stop_all()

    async def _take(self, inputs: list[Input]) -> bool:
        """Decide inputs; say whether there is an execution at all."""
        if inputs:
            await self._transact(inputs)
            self._refuse(inputs)
            self._alarms.hear(inputs)
        if not self._begun() and self._outgoing is not None:
            await self._outgoing.sent()
        return self._begun()

    async def _drain(self) -> tuple[list[Input], list[asyncio.Future[bool]]]:
        """Wait for one input and take those that queue behind it: they are decided together and leave as one entry."""
        taken = await self._mailbox.some(MAX_INPUTS)
        return [given for given, _ in taken], [decided for _, decided in taken if decided]

    async def _stays_quiet(self) -> bool:
        """Wait until it has been quiet for long enough; False when it was spoken to."""
        state = self._folded.state if self._folded else None
        over = not isinstance(state, Started) or state.outcome is not None
        if self._folded is not None and not over:
            self._saving.rests(self._folded)
        self._mailbox.sleep()
        until = asyncio.get_running_loop().time() + self._around.quiet()
        while self._mailbox.empty and not over and not self._leaving and self._around.quiet():
            try:
                async with asyncio.timeout_at(until):
                    await self._mailbox.woken()
            except TimeoutError:
                break
        return self._mailbox.empty

    def _begun(self) -> bool:
        return self._folded is not None and self._folded.n > 0

    async def _transact(self, inputs: list[Input]) -> None:
        """Load, decide, append as one entry, evolve; when another writer was first, load and decide again.

        This is the only such loop.
        """
        while True:
            folded = self._folded or await self._load()
            at = datetime.now(UTC)
            fresh = _fresh(inputs, folded)
            commands = [given for given in fresh if is_command(given)]
            causes = [command.id for command in commands]
            events, state = await self._decide(folded.state, fresh, at)
            told = isinstance(folded.state, Started) and any(isinstance(command, Control) for command in commands)
            if not events and not told:  # who gave a command waits to see it in the log, even where it was so already
                return
            entry = Entry(new_id(), folded.n + 1, folded.prev, at, events, causes, self._around.epoch)
            try:
                recorded = await self._append(entry, folded.position)
            except VersionConflict:
                self._folded = None
                if not folded.n:  # it was taken for new, and has begun, perhaps as another workflow: recover what it is
                    self._plan = None
                    inputs = [Recover(), *(given for given in inputs if not isinstance(given, Recover))]
            except BaseException:
                self._folded = None  # whether it was appended is unknown: the log knows
                raise
            else:
                self._folded = folded.after(recorded, entry, state)
                if len(events) > MANY:  # it was left off there
                    self._mailbox.put(Continue())
                self._saving.appended(self._folded, len(recorded.data))
                return

    async def _append(self, entry: Entry, position: int) -> Recorded:
        """Append, for as long as it takes: work goes on meanwhile, and the entry's id keeps it from counting twice."""
        pause = _PAUSE
        while True:
            await self._around.fence()
            try:
                return await self._around.log.append(self.id, entry, position)
            except LogUnavailable as error:
                _log.warning("execution %s: %s; tried again in %g s", self.id, error, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _load(self) -> Folded:
        folded, self._saving.tail = await load(self._around.log, self._around.snapshots, self.id)
        if folded.epoch > self._around.epoch:
            raise Deposed(f"execution {self.id!r} is owned by epoch {folded.epoch}, this is {self._around.epoch}")
        self._folded = folded
        if isinstance(folded.state, Started):
            self._alarms.remember(folded.state.timers)
        return folded

    async def _decide(self, state: ExecutionState, inputs: list[Input], at: datetime) -> Decision:
        events: list[Event] = []
        for given in inputs:
            plan = await self._plan_for(state, given)
            if plan is None:
                continue  # nothing was ever started under this id, so there is nothing to recover
            if isinstance(given, Recover) and isinstance(state, Started):
                given = Recover(self._apart(state, plan))
            following, state = self._decided(plan, state, given, at)
            events += following
        return events, state

    def _decided(self, plan: Plan, state: ExecutionState, given: Input, at: datetime) -> Decision:
        """Decide; a command that no decision can be made of is refused, for it would come back for ever."""
        try:
            return decide(plan, self.id, state, given, at)
        except Exception as error:
            if not isinstance(given, Control):
                raise
            _log.exception("execution %s: the command %r cannot be decided, and is refused", self.id, given)
            return [CommandRefused(given.id, f"a fault in perdure: {type(error).__name__}: {error}")], state

    def _apart(self, state: Started, plan: Plan) -> frozenset[str]:
        nodes = {path: (plan.node(path), known.resumed) for path, known in state.running.items()}
        places, apart = state.started.tools, self._around.apart
        return frozenset(
            path for path, (node, resumed) in nodes.items() if apart(plan, node, places.get(node.target), resumed)
        )

    async def _plan_for(self, state: ExecutionState, given: Input) -> Plan | None:
        if self._plan is None:
            begun = state.started if isinstance(state, Started) else given
            if not isinstance(begun, StartExecution | ExecutionStarted):
                return None
            self._plan = await self._around.plan(begun.digest)
            if self._plan.apart and self._around.shared:
                raise BelongsElsewhere(f"execution {self.id!r} has a process of its own")
            if self._around.bring is not None:
                await self._around.bring(begun.tools)
        return self._plan

    async def _reconcile(self) -> None:
        """Start what should be running and is not, stop what is and should not: work and timers alike."""
        state = self._folded.state if self._folded else None
        going_on = state if isinstance(state, Started) and state.outcome is None else None
        await self._attempts.reconcile(going_on, self._plan)
        if self._outgoing is not None and isinstance(state, Started) and self._plan is not None:
            self._outgoing.reconcile(state, self._plan)
        timers = dict(going_on.timers.items()) if going_on is not None else {}
        await self._alarms.reconcile(state.started.lane if isinstance(state, Started) else "", timers)

    def _refuse(self, inputs: list[Input]) -> None:
        """Tell a parent whose child cannot begin, for its id is taken, or cannot be undone; each time that it asks."""
        folded, outgoing = self._folded, self._outgoing
        if folded is None or outgoing is None:
            return
        for given in inputs:
            if isinstance(given, StartExecution) and given.parent is not None:
                if not isinstance(folded.state, Started) or folded.state.started.parent != given.parent:
                    outgoing.refuse(given.id, given.parent)
            elif isinstance(given, CompensateExecution) and (why := refusal(self.id, folded.state, given)):
                outgoing.cannot_compensate(given, why)

    def _can_be_left(self) -> bool:
        """Say whether nothing can happen here before the outside world speaks."""
        return self._mailbox.empty and not self._attempts.under_way and (self._leaving or not self._alarms.near)

    def _stop_all(self) -> None:
        self._attempts.stop()
        self._alarms.stop()
        if self._outgoing is not None:
            self._outgoing.stop()

    def _turn_away(self, waiting: list[asyncio.Future[bool]]) -> None:
        """Tell those who still wait that nothing was decided here."""
        waiting += [decided for _, decided in self._mailbox.rest() if decided]
        for decided in waiting:
            if not decided.done():
                decided.set_result(False)

    def _fail_tellers(self, waiting: list[asyncio.Future[bool]], error: BaseException) -> None:
        waiting += [decided for _, decided in self._mailbox.rest() if decided]
        for decided in waiting:
            if not decided.done():
                decided.set_exception(error)


def _fresh(inputs: list[Input], folded: Folded) -> list[Input]:
    """Return the inputs without commands that are answered already, or that come twice among these."""
    fresh: list[Input] = []
    seen: set[str] = set()
    for given in inputs:
        if is_command(given):
            if given.id in seen or folded.knows(given.id):
                continue
            seen.add(given.id)
        fresh.append(given)
    return fresh
