"""Calls in node actors, as the process of an execution makes them: with tickets of the keeper of all pools.

Calls of one pool stand in one line here. An actor that one of them leaves is the next one's at once, without a word to
the keeper, unless that has said that others wait for it. Calls that have proved to be quick leave together.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import uuid4

from ray.exceptions import RayError

from perdure.actors.batches import LENGTH, Batch, NotBegun, Slice, TakesLong, call_id, may_travel
from perdure.actors.call_lines import Lease, Line, Waiting, awaited, run_of, silence_of, watch
from perdure.actors.deaths import GONE, how_it_died
from perdure.actors.demands import demand_of
from perdure.actors.keeper import RUNS, Granted, Heard, NotGranted
from perdure.actors.pools import STARTING
from perdure.actors.time_limits import HeartbeatLost, QueueTimeout, Timeout, alive, in_time
from perdure.actors.work import ToolFailed, Work, WorkerLost, error_of, result_of
from perdure.errors import EnvironmentProblem

_log = logging.getLogger("perdure.node_actors")

_BEAT = 0.5  # seconds between words to the keeper
_SHOWN_AFTER = 2.0  # seconds of waiting from which an execution records it
_KEPT = 0.1  # seconds that an actor is kept for the next call
_MOST_ASKED = 16  # tickets of one line that wait at the keeper
_MOST_URGENT = 64  # with those of executions, or of priorities, that have none among the others
_TRIES = 20


class NodeActors:
    """Makes calls in node actors; see CallElsewhere. find: gives the keeper's handle, of a new one where it is gone."""

    def __init__(self, find: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._find = find
        self._keeper: Any = None
        self._holder = uuid4().hex
        self._lines: dict[str, Line] = {}
        self._runs: dict[str, str] = {}
        self._told_runs: dict[str, str] = {}
        self._losses, self._lost = 0, dict[str, str]()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping: set[asyncio.Task[None]] = set()
        self._beating: asyncio.Task[None] | None = None
        self._begun: asyncio.Task[None]

    async def __call__(self, work: Work) -> Any:
        """Run the tool in a node actor; see CallElsewhere."""
        assert work.place is not None  # noqa: S101 (every tool was located before the start)
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat(), name="perdure-node-actors")
            self._begun = asyncio.create_task(self._begin())
        await asyncio.shield(self._begun)  # one for all, so that calls go on in the order in which they came
        self._check_lost(work)
        demand = demand_of(work.plan, work.node, work.place, work.places)
        key = f"{demand.key} alone" if work.resumed else demand.key  # it may be what takes its process down
        line = self._lines.setdefault(key, Line(demand))
        line.users += 1
        try:
            while True:
                with contextlib.suppress(NotBegun):
                    return await self._made(line, await self._lease(line, work), work)
        finally:
            line.users -= 1

    async def close(self) -> None:
        """Wait for calls that are being stopped, and give all actors back; call it when no work is left."""
        await asyncio.gather(*self._stopping)
        for task in [*self._tasks, *([self._beating] if self._beating else [])]:
            task.cancel()
        if self._keeper is not None:
            tickets = [ticket for line in self._lines.values() for ticket in (*line.kept, *line.asked)]
            with contextlib.suppress(RayError):
                await asyncio.gather(*(awaited(self._keeper.release.remote(each, False)) for each in tickets))

    async def _begin(self) -> None:
        """Hear what was lost while no process of ours was there, or with the one before this one."""
        try:
            self._keeper = self._keeper or await self._find()
            await self._hear()
        except Exception as error:
            _log.debug("the keeper of the node actors does not answer yet: %s", error)

    def _check_lost(self, work: Work) -> None:
        """Raise WorkerLost for a run whose process died together with the one that waited for it, so that it counts."""
        how = self._lost.pop(run_of(work), None)
        if how is not None:
            raise WorkerLost(how)

    async def _lease(self, line: Line, work: Work) -> Lease:
        """Wait for an actor; raise QueueTimeout, WorkerLost, or what the tool's loading raised."""
        if line.kept:
            if work.waits_for:
                work.queued("")
            return line.kept.pop(next(iter(line.kept)))
        call = Waiting(work)
        line.calls.add(call, work.execution, call.since, work.priority)
        self._ask(line, call)
        patience = work.node.queue_timeout
        watching = asyncio.create_task(self._lose_patience(line, call, patience)) if patience is not None else None
        try:
            lease = await call.lease
        except asyncio.CancelledError:
            if call.lease.done() and not call.lease.cancelled() and call.lease.exception() is None:
                self._leave(line, call.lease.result(), work)
            raise
        finally:
            line.calls.remove(call)
            if watching is not None:
                watching.cancel()
        if call.told:
            work.queued("")
        return lease

    async def _lose_patience(self, line: Line, call: Waiting, seconds: float) -> None:
        """Give a call up that has waited so long, unless an actor is just starting for it."""
        await asyncio.sleep(seconds)
        while not call.lease.done():
            await self._hear()
            if call.why not in ("", STARTING) and not call.lease.done():
                line.calls.remove(call)
                call.lease.set_exception(
                    QueueTimeout(f"there was no room in a node actor within {seconds:g} s: {call.why}")
                )
            await asyncio.sleep(_BEAT / 2)

    def _ask(self, line: Line, newest: Waiting | None = None) -> None:
        """Ask the keeper for as many actors as calls wait here, up to a number that shows that there are many.

        Beyond it one that is more urgent than the others of its execution, or the first of it, is asked for as well.
        """
        call = newest or line.calls.head()
        if call is None:
            return
        share, priority = call.work.execution, call.work.priority
        room = len(line.asked) < min(len(line.calls), _MOST_ASKED)
        if not room and len(line.asked) < min(len(line.calls), _MOST_URGENT):
            room = not any(each == share and other >= priority for each, other in line.asked.values())
        if room:
            ticket = uuid4().hex
            line.asked[ticket] = share, priority
            self._run(self._asked(line, ticket))

    async def _asked(self, line: Line, ticket: str) -> None:
        try:
            answer = await self._answer(line, ticket)
        except Exception as error:
            answer = NotGranted(error=error_of(error))
        if ticket not in line.asked:
            return  # it was taken back, and what was granted with it
        del line.asked[ticket]
        if isinstance(answer, Granted):
            self._give(line, Lease(ticket, answer))
        elif line.calls:
            call = line.calls.take(asyncio.get_running_loop().time())
            call.lease.set_exception(WorkerLost(answer.lost) if answer.error is None else ToolFailed(answer.error))
        self._ask(line)

    async def _answer(self, line: Line, ticket: str) -> Granted | NotGranted:
        alone = line is self._lines.get(f"{line.demand.key} alone")
        for number in range(_TRIES):
            try:
                keeper = self._keeper = self._keeper or await self._find()
                answer: Granted | NotGranted = await keeper.ask.remote(
                    ticket, self._holder, line.demand, alone, *line.asked.get(ticket, ())
                )
            except GONE as error:
                _log.warning("the keeper of the node actors is gone, started again: %s", how_it_died(error))
                self._keeper = None
                await asyncio.sleep(0.1 * number)
            else:
                return answer
        raise EnvironmentProblem("the keeper of the node actors does not stay alive; its log says why")

    def _give(self, line: Line, lease: Lease) -> None:
        """Give an actor to the next calls of the line, or keep it a little for the one after."""
        if line.calls:
            self._load(line, lease)
        elif line.pressed:
            self._release(lease.ticket, spoiled=False)
        else:
            line.kept[lease.ticket] = lease
            asyncio.get_running_loop().call_later(_KEPT, self._let_go, line, lease.ticket)

    def _load(self, line: Line, lease: Lease) -> None:
        """Let the next call go, with those that may go together with it; the first one, to see how long it takes."""
        now = asyncio.get_running_loop().time()
        many = line.pace.together(len(line.calls), line.busy + 1)
        calls = [line.calls.take(now)]
        if (many > 1 or line.pace.unknown) and may_travel(calls[0].work):
            while len(calls) < many and (head := line.calls.head()) is not None and may_travel(head.work):
                calls.append(line.calls.take(now))
            lease = lease._replace(batch=Batch(lease.ticket, [each.work for each in calls]))
            self._run(self._sent(line, lease))
        for each in calls:
            each.lease.set_result(lease)

    def _leave(self, line: Line, lease: Lease, work: Work) -> None:
        """Give an actor on that was a call's which nobody awaits any more."""
        if lease.batch is None:
            self._give(line, lease)
        else:
            self._forsake(lease, work)

    def _forsake(self, lease: Lease, work: Work) -> None:
        """Have a call of a batch not begun, or stopped; whether it does stop, the batch sees."""
        assert lease.batch is not None  # noqa: S101 (who calls has looked)
        call = call_id(lease.ticket, work)
        lease.batch.leave(call)
        lease.granted.actor.stop.remote(call)

    async def _sent(self, line: Line, lease: Lease) -> None:
        """Send a batch, tell what came of it, and give the actor on, unless a call goes on there."""
        batch, actor = lease.batch, lease.granted.actor
        assert batch is not None  # noqa: S101 (who calls has made it)
        self._runs[lease.ticket] = RUNS.join(map(run_of, batch.works.values()))
        line.busy += 1
        try:
            came: Slice = await actor.batch.remote(batch.calls, LENGTH)
        except Exception as error:
            self._release(lease.ticket, spoiled=True)
            batch.fail(WorkerLost(how_it_died(error)) if isinstance(error, RayError) else error)
            return
        finally:
            line.busy -= 1
            self._runs.pop(lease.ticket, None)
        line.pace.saw(max(1, len(came.outcomes) + bool(came.going_on)), came.seconds)
        left = came.going_on and batch.is_left(came.going_on)
        batch.settle(came)
        if not came.going_on:
            self._pass_on(line, lease)
        elif left:
            await self._stopped(lease, came.going_on, line.demand.grace if lease.granted.stops else 0)

    def _pass_on(self, line: Line, lease: Lease) -> None:
        """Give an actor that is free to the next call here, or back where others wait."""
        if line.pressed:
            self._release(lease.ticket, spoiled=False)
        else:
            self._give(line, lease._replace(batch=None))

    def _let_go(self, line: Line, ticket: str) -> None:
        if line.kept.pop(ticket, None) is not None:
            self._release(ticket, spoiled=False)

    async def _made(self, line: Line, lease: Lease, work: Work) -> Any:
        """Make the call and give the actor back, at once or when it has been stopped; raise NotBegun."""
        call = call_id(lease.ticket, work)
        if lease.batch is not None:
            try:
                return result_of(await in_time(lease.batch.outcome(call), work.node.timeout))
            except TakesLong:
                return await self._alone(line, lease, work, lease.granted.actor.finish.remote(call))
            except (asyncio.CancelledError, Timeout):
                self._forsake(lease, work)
                raise
        began = asyncio.get_running_loop().time()
        result = await self._alone(line, lease, work, lease.granted.actor.call.remote(call, work.input, work.context()))
        line.pace.took(asyncio.get_running_loop().time() - began)
        return result

    async def _alone(self, line: Line, lease: Lease, work: Work, answer: Any) -> Any:
        """Await a call that has its actor alone, or its place in it."""
        actor, ticket = lease.granted.actor, lease.ticket
        call = call_id(ticket, work)
        watching = asyncio.create_task(watch(actor, call, work)) if lease.granted.stops else None
        self._runs[ticket] = run_of(work)
        line.busy += 1
        try:
            outcome = await in_time(
                alive(awaited(answer), work.node.heartbeat, silence_of(actor, call)), work.node.timeout
            )
        except RayError as error:
            self._release(ticket, spoiled=True)
            raise WorkerLost(how_it_died(error)) from error
        except (asyncio.CancelledError, Timeout, HeartbeatLost):
            grace = line.demand.grace if lease.granted.stops else 0
            self._run(self._stopped(lease, call, grace), self._stopping)
            raise
        finally:
            line.busy -= 1
            self._runs.pop(ticket, None)
            if watching is not None:
                watching.cancel()
        self._pass_on(line, lease)
        return result_of(outcome)

    async def _stopped(self, lease: Lease, call_id: str, grace: float) -> None:
        """Ask a call to stop; an actor in which it does not in time is killed as soon as it has no other call."""
        spoiled = True
        try:
            if grace:
                async with asyncio.timeout(grace):
                    await lease.granted.actor.stop.remote(call_id)
                spoiled = False
        except (TimeoutError, RayError):
            pass
        finally:
            self._release(lease.ticket, spoiled=spoiled)

    def _release(self, ticket: str, *, spoiled: bool) -> None:
        if self._keeper is not None:
            self._keeper.release.remote(ticket, spoiled)

    async def _beat(self) -> None:
        """Tell the keeper that we live, and the executions what their calls wait for."""
        while True:
            await asyncio.sleep(_BEAT)
            await self._hear()
            now = asyncio.get_running_loop().time()
            for key, line in list(self._lines.items()):
                for call in line.calls:
                    if call.why and call.why != call.told and now - call.since >= _SHOWN_AFTER:
                        call.told = call.why
                        call.work.queued(call.why)
                for ticket in list(line.asked)[len(line.calls) :]:  # more than wait: others were quicker
                    del line.asked[ticket]
                    self._release(ticket, spoiled=False)
                if not line.users and not line.asked and not line.kept:
                    del self._lines[key]

    async def _hear(self) -> None:
        """Learn what the calls wait for, and which pools others wait for."""
        if self._keeper is None:
            return
        new = {ticket: run for ticket, run in self._runs.items() if self._told_runs.get(ticket) != run}
        self._told_runs = dict(self._runs)
        more = {line.demand.key: len(line.calls) - len(line.asked) for line in self._lines.values()}
        more = {key: count for key, count in more.items() if count > 0}
        try:
            heard: Heard = await self._keeper.hear.remote(self._holder, new, more, self._losses)
        except RayError:
            return  # who asks for an actor starts the keeper again
        if heard.losses != self._losses:
            self._losses, self._lost = heard.losses, heard.lost
        for line in self._lines.values():
            line.pressed = line.demand.key in heard.pressed
            whys = [heard.waits.get(ticket, "") for ticket in line.asked] or [""]
            for number, call in enumerate(line.calls):
                call.why = whys[min(number, len(whys) - 1)]

    def _run(self, work: Coroutine[Any, Any, None], among: set[asyncio.Task[None]] | None = None) -> None:
        among = self._tasks if among is None else among
        task = asyncio.create_task(work)
        among.add(task)
        task.add_done_callback(among.discard)
