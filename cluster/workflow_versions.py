"""One registered workflow: what happened to it, how that folds into its versions, and what may happen next."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from perdure.cluster.references import DIGEST, Reference
from perdure.errors import BadInput, WorkflowDeprecated, WorkflowNotFound

# The events. They are stored under their import paths: one that moves is to be registered under its old path
# (eventsourcing.utils.register_topic).


@dataclass(frozen=True, kw_only=True)
class Event:
    """What all have in common. originator_id: the workflow's name; timestamp: in UTC; by: who did it."""

    originator_id: str
    originator_version: int
    timestamp: datetime
    by: str


@dataclass(frozen=True, kw_only=True)
class Registered(Event):
    """A definition became the next version. base: the folder of its tool files; None where it names none."""

    version: int
    digest: str
    base: str | None


@dataclass(frozen=True, kw_only=True)
class Moved(Event):
    """The definition of a version was registered again, and its tool files are in another folder now."""

    version: int
    base: str


@dataclass(frozen=True, kw_only=True)
class Activated(Event):
    """The name alone starts this version from now on."""

    version: int


@dataclass(frozen=True, kw_only=True)
class Deprecated(Event):
    """New starts of this version are refused from now on."""

    version: int
    why: str


# The state that they fold into.


@dataclass(frozen=True)
class Version:
    """One version. by, at: who registered it and when (UTC); deprecated: why it takes no new starts, or None."""

    version: int
    digest: str
    by: str
    at: datetime
    base: str | None = None
    deprecated: str | None = None


@dataclass(frozen=True)
class RegisteredWorkflow:
    """A name and its versions. pinned: the version that was activated, None while the last one is active."""

    name: str
    versions: tuple[Version, ...] = ()
    pinned: int | None = None
    events: int = 0

    @property
    def active(self) -> int:
        """The version that the name alone starts: the last one, unless an earlier one was activated."""
        return self.pinned or len(self.versions)

    def at(self, version: int) -> Version:
        """Return a version by its number. Raises WorkflowNotFound."""
        if not 1 <= version <= len(self.versions):
            raise WorkflowNotFound(
                f"workflow {self.name!r} has no version {version}; its last one is {len(self.versions)}"
            )
        return self.versions[version - 1]

    def find(self, reference: Reference) -> Version:
        """Return the version that is meant. Raises WorkflowNotFound, or BadInput where a digest fits several."""
        if reference.digest is None:
            return self.at(reference.version or self.active)
        found = [each for each in self.versions if each.digest.startswith(DIGEST + reference.digest)]
        if not found:
            raise WorkflowNotFound(
                f"workflow {self.name!r} has no version with the digest {DIGEST}{reference.digest}; "
                f"see them with: perdure workflows show {self.name}"
            )
        if len(found) > 1:
            raise BadInput(f"{DIGEST}{reference.digest} fits {len(found)} versions of {self.name!r}; give more digits")
        return found[0]


def fold(name: str, events: Iterable[Any]) -> RegisteredWorkflow:
    """Return the state that these events led to."""
    state = RegisteredWorkflow(name)
    for event in events:
        state = evolve(state, event)
    return state


def evolve(state: RegisteredWorkflow, event: Any) -> RegisteredWorkflow:
    """Return the state after one more event."""
    state = replace(state, events=event.originator_version)
    match event:
        case Registered(version=number):
            added = Version(number, event.digest, event.by, event.timestamp, event.base)
            return replace(state, versions=(*state.versions, added))
        case Moved(version=number, base=base):
            return _changed(state, number, base=base)
        case Activated(version=number):
            pinned = None if number == len(state.versions) else number
            return replace(_changed(state, number, deprecated=None), pinned=pinned)
        case Deprecated(version=number, why=why):
            return _changed(state, number, deprecated=why)
    return state


def _changed(state: RegisteredWorkflow, number: int, **changes: Any) -> RegisteredWorkflow:
    versions = list(state.versions)
    versions[number - 1] = replace(versions[number - 1], **changes)
    return replace(state, versions=tuple(versions))


# The decisions: the event that follows, or None where it is so already.


def register(state: RegisteredWorkflow, digest: str, base: str | None, by: str) -> Event | None:
    """Make a definition the next version, unless it is one already. base: the folder of its tool files."""
    there = next((each for each in state.versions if each.digest == digest), None)
    if there is None:
        return Registered(**_head(state, by), version=len(state.versions) + 1, digest=digest, base=base)
    if base is not None and base != there.base:
        return Moved(**_head(state, by), version=there.version, base=base)
    return None


def activate(state: RegisteredWorkflow, version: int, by: str) -> Event | None:
    """Make a version the one that the name alone starts, deprecated or not. Raises WorkflowNotFound."""
    if state.at(version).deprecated is None and state.active == version:
        return None
    return Activated(**_head(state, by), version=version)


def deprecate(state: RegisteredWorkflow, version: int, why: str, by: str) -> Event | None:
    """Refuse new starts of a version. Raises WorkflowNotFound, or BadInput where no reason is given."""
    if not why.strip():
        raise BadInput(f"say why version {version} of workflow {state.name!r} is not to be started any more")
    if state.at(version).deprecated == why:
        return None
    return Deprecated(**_head(state, by), version=version, why=why)


def check_start(state: RegisteredWorkflow, version: Version) -> None:
    """Raise WorkflowDeprecated where a version takes no new starts."""
    if version.deprecated is not None:
        others = [each.version for each in state.versions if each.deprecated is None]
        other = f"perdure workflows activate {state.name}@{others[-1]} for another version, or " if others else ""
        raise WorkflowDeprecated(
            f"version {version.version} of workflow {state.name!r} is deprecated: {version.deprecated}; "
            f"{other}perdure workflows activate {state.name}@{version.version} to use it again"
        )


def _head(state: RegisteredWorkflow, by: str) -> dict[str, Any]:
    return {
        "originator_id": state.name, "originator_version": state.events + 1, "timestamp": datetime.now(UTC), "by": by,
    }  # fmt: skip
