"""python-statemachine as an independent interpreter of SCXML: a chart runs in it, step by step.

Version 3.2 says of itself that it follows SCXML. Where it does not, and a few lines can mend it from outside, they
stand here, each with the section of the Recommendation:

- It numbers states by their depth and their place among those around them, states of one kind after those of another.
  Entry and exit order is document order (3.13), so the states are numbered anew.
- It asks active states for transitions in the order in which they were entered ("TODO: sorted by document order").
  Among conflicting transitions the earlier one in document order is taken (3.13), so they are sorted.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from chart_as_scxml import id_of, to_scxml
from statemachine import StateChart
from statemachine.io.scxml.processor import SCXMLProcessor
from statemachine.model import Model
from statemachine.orderedset import OrderedSet


class _Data(Model):
    """The data of a random chart."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.n = 0
        self.log: list[str] = []


class Other:
    """A chart in the other interpreter. `paths` are its states in document order."""

    def __init__(self, chart: Mapping[str, Any], paths: Sequence[str]) -> None:
        processor = SCXMLProcessor(trusted=True)
        processor.parse_scxml("random", to_scxml(chart))
        made = next(iter(processor.scs.values()))
        order = {id_of(path): number for number, path in enumerate(paths, 1)}
        for state in made.states_map.values():
            state.document_order = order[state.id]
        theirs: Any = StateChart.configuration
        made.configuration = property(  # type: ignore[assignment, method-assign]
            lambda machine: OrderedSet(sorted(theirs.fget(machine), key=lambda each: order[each.id])), theirs.fset
        )
        self._machine = processor.start(model=_Data())  # type: ignore[no-untyped-call]

    def send(self, event: str) -> None:
        """Let the chart take an event."""
        self._machine.send(event)

    @property
    def active(self) -> set[str]:
        """The ids of the active states."""
        return {state.id for state in self._machine.configuration}

    @property
    def log(self) -> list[str]:
        """What the chart's actions wrote."""
        return list(self._machine.model.log)
