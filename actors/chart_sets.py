"""Which states the transitions of a statechart leave and enter. Pure; after SCXML, appendix D, whose names are told."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from perdure.definitions.chart_plan import PlanState, PlanTransition, domain_of


@dataclass(frozen=True, slots=True)
class Sets:
    """The sets of a chart in a configuration. `remembered` gives what a history stands for now, nothing at first."""

    configuration: set[PlanState]
    remembered: Callable[[PlanState], Sequence[PlanState]]

    def without_conflicts(self, enabled: Iterable[PlanTransition]) -> list[PlanTransition]:
        """Drop transitions that leave a state that another one leaves: the inner, else the earlier one stays.

        There is such a state where the domain of one is that of the other or lies within it: what a domain holds of
        active states is left, and that is never nothing.
        """
        kept: list[PlanTransition] = []
        domains = {way: self._domain(way) for way in enabled if way.targets}
        for way in enabled:
            beaten = list[PlanTransition]()
            for other in kept if way.targets else ():
                if other.targets and _meet(domains[way], domains[other]):
                    if not way.source.lies_in(other.source):
                        break
                    beaten.append(other)
            else:
                kept = [other for other in kept if other not in beaten]
                kept.append(way)
        return kept

    def exit_set(self, enabled: Iterable[PlanTransition]) -> set[PlanState]:
        """Return the active states that transitions leave."""
        left = set[PlanState]()
        for domain in {self._domain(way) for way in enabled if way.targets}:
            left.update(each for each in self.configuration if each.lies_in(domain))
        return left

    def _domain(self, way: PlanTransition) -> PlanState | None:
        """Return what all that a transition leaves and enters lies within (D: getTransitionDomain)."""
        return domain_of(way, self._effective(way.targets)) if way.to_history else way.domain

    def _effective(self, targets: Iterable[PlanState]) -> list[PlanState]:
        """Return targets with histories replaced by what they stand for (D: getEffectiveTargetStates)."""
        found: list[PlanState] = []
        for each in targets:
            found += [each] if each.kind != "history" else self._effective(self.remembered(each) or each.initial)
        return found

    def entry_set(self, way: PlanTransition) -> set[PlanState]:
        """Return the states that a transition enters; what it leaves and enters lies within its domain (SCXML 3.13).

        The text of appendix D adds the states around what a history remembers up to the history's parent. That goes
        beyond the domain where a deep history leads back into what was not left: it enters active states a second time,
        and the default of a region that is active. Here they are added up to the domain, as for any target.
        """
        entered = set[PlanState]()
        self._add_targets(way.targets, self._domain(way), entered)
        return entered

    def initial_set(self, initial: Iterable[PlanState]) -> set[PlanState]:
        """Return the states that a chart enters when it begins."""
        entered = set[PlanState]()
        self._add_targets(initial, None, entered)
        return entered

    def _add_targets(self, targets: Iterable[PlanState], domain: PlanState | None, entered: set[PlanState]) -> None:
        """Add all that is entered for these targets (D: computeEntrySet)."""
        for each in targets:
            self._add_with_descendants(each, entered)
        for each in self._effective(targets):
            self._add_ancestors(each, domain, entered)

    def _add_with_descendants(self, state: PlanState, entered: set[PlanState]) -> None:
        """Add a state with what is entered within it (D: addDescendantStatesToEnter)."""
        if state.kind == "history":
            for each in self.remembered(state) or state.initial:
                self._add_with_descendants(each, entered)
            return  # who asked for it adds the states around
        entered.add(state)
        if state.kind == "compound":
            for each in state.initial:
                self._add_with_descendants(each, entered)
            for each in self._effective(state.initial):
                self._add_ancestors(each, state, entered)
        elif state.kind == "parallel":
            self._add_regions(state, entered)

    def _add_ancestors(self, state: PlanState, outer: PlanState | None, entered: set[PlanState]) -> None:
        """Add the states around a state up to an outer one, and their other regions (D: addAncestorStatesToEnter)."""
        for around in state.ancestors:
            if around is outer:
                return
            entered.add(around)
            if around.kind == "parallel":
                self._add_regions(around, entered)

    def _add_regions(self, state: PlanState, entered: set[PlanState]) -> None:
        for region in state.children:
            if not any(each is region or each.lies_in(region) for each in entered):
                self._add_with_descendants(region, entered)

    def is_done(self, state: PlanState) -> bool:
        """Say whether a state has come to its end (D: isInFinalState)."""
        if state.kind == "compound":
            return any(each.kind == "final" and each in self.configuration for each in state.children)
        return state.kind == "parallel" and all(self.is_done(each) for each in state.children)


def _meet(one: PlanState | None, other: PlanState | None) -> bool:
    """Say whether two domains are one, or one of them lies within the other."""
    return one is other or one is None or one.lies_in(other) or (other is not None and other.lies_in(one))
