"""What a whole execution says to its limits: it asks to be let in, and gives back what it has at its end."""

from collections.abc import Awaitable, Callable, Iterator

from perdure.actors.admission import ticket_of
from perdure.actors.inputs import AdmitExecution, RefuseExecution
from perdure.actors.limit_facts import Ticket
from perdure.actors.limiting import Limits, LimitUnknown, claimed
from perdure.actors.state import Started
from perdure.definitions.limits import PlanLimit
from perdure.definitions.plan import Plan
from perdure.events.vocabulary import Error, LimitClaim

Answer = Callable[[AdmitExecution | RefuseExecution], None]
Say = Callable[[], Awaitable[None]]


def owed_to_limits(
    execution: str, state: Started, plan: Plan, limits: Limits, answer: Answer
) -> Iterator[tuple[str, str, Say]]:
    """Yield what is to be said: a word for what it is, whom it is for, and how it is said."""
    for key, claim in state.slots.items():
        retries, _, _ = key.partition("/")
        ticket = execution if retries == "0" else f"{execution}+{retries}"
        if state.outcome is not None or int(retries) != state.retries:
            yield "slot back", f"{ticket} {claim.limit}", _giving_back(limits, claim.limit, ticket)
        elif claim == state.queued:
            gate = next(each for each in plan.gates if each.group == claim.limit)
            asking = _Asking(execution, state, gate, claim, limits, answer)
            yield "question", f"{ticket} {claim.limit}", asking.say


def _giving_back(limits: Limits, limit: str, ticket: str) -> Say:
    return lambda: limits.give_back(limit, ticket)


class _Asking:
    """One question of an execution to a limit; where it has to wait, the answer comes as a command, one day."""

    def __init__(
        self, execution: str, state: Started, gate: PlanLimit, claim: LimitClaim, limits: Limits, answer: Answer
    ) -> None:
        self._id = execution
        self._state = state
        self._gate = gate
        self._claim = claim
        self._limits = limits
        self._answer = answer

    async def say(self) -> None:
        claim, started = self._claim, self._state.started
        name = ticket_of(self._id, self._state)
        ticket = Ticket(
            name, self._id, claim.since.timestamp(), claim.key, claim.share, claim.cost, started.priority,
            lane=started.lane,
        )  # fmt: skip
        began = started.began.timestamp() if started.began is not None else 0.0
        try:
            standing = await self._limits.admit(ticket, self._gate, began)
        except LimitUnknown as error:
            self._refuse(name, Error("LimitUnknown", str(error)))
            return
        if standing.state == "held":
            self._answer(AdmitExecution(f"{name}/{claim.limit}/admitted", self._id, claim.limit, name))
        elif standing.state == "gone":
            self._refuse(name, refused(claim))

    def _refuse(self, ticket: str, error: Error) -> None:
        limit = self._claim.limit
        self._answer(RefuseExecution(f"{ticket}/{limit}/refused", self._id, limit, ticket, error))


def refused(claim: LimitClaim) -> Error:
    """Return the error of an execution that a limit does not let in."""
    if claim.limit.startswith("quota:"):
        return Error("QuotaExceeded", f"{claimed(claim)} is used up; start it again later", {"key": claim.key})
    return Error("LimitReached", f"{claimed(claim)} has no room, and rejects whoever comes then", {"key": claim.key})
