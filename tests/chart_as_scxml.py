"""A random statechart written as SCXML, for interpreters that read it."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

_TEXT = re.compile(r"\$\{\{ (.*) \}\}")


def to_scxml(chart: Mapping[str, Any]) -> str:
    """Return a chart of `random_charts` as an SCXML document whose ids are the names of the states."""
    root = ET.Element("scxml", {"xmlns": "http://www.w3.org/2005/07/scxml", "version": "1.0", "datamodel": "python"})
    root.set("initial", _ids(chart["initial"]) if "initial" in chart else next(iter(chart["states"])))
    for name, state in chart["states"].items():
        _state(root, name, state, name)
    return ET.tostring(root, encoding="unicode")


def comparable(chart: dict[str, Any]) -> dict[str, Any]:
    """Return a chart that is like another, and has nothing in it that python-statemachine 3.2 is known to get wrong.

    It runs the content of a transition a second time when that leads to a history (D, enterStates: only the content of
    the history's own default transition is run there, and only where that is taken). And it does not run the exit of
    the final state that it ends in (D, exitInterpreter).
    """
    history = "'type': 'history'" in repr(chart)
    made = {name: _like(state, history) for name, state in chart["states"].items()}
    ends = [state for state in made.values() if state.get("type") == "final"]
    return {**chart, "states": made | {name: {**each, "exit": []} for name, each in made.items() if each in ends}}


def _like(state: Mapping[str, Any], history: bool) -> dict[str, Any]:
    made = dict(state)
    if "states" in state:
        made["states"] = {name: _like(each, history) for name, each in state["states"].items()}
    for key in ("always", "on_done"):
        made |= {key: [_without_content(way) for way in state[key]]} if history and key in state else {}
    if history and "on" in state:
        made["on"] = {event: [_without_content(way) for way in ways] for event, ways in state["on"].items()}
    return made


def _without_content(way: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in way.items() if key != "do" or "target" not in way}


def id_of(path: str) -> str:
    """Return the id of a state in the document."""
    return path.rpartition(".")[2]


def _ids(paths: list[str]) -> str:
    return " ".join(map(id_of, paths))


def _state(around: ET.Element, name: str, state: Mapping[str, Any], path: str) -> None:
    kind = state.get("type", "state")
    made = ET.SubElement(around, kind, {"id": name})
    if kind == "history":
        made.set("type", "deep" if state["deep"] else "shallow")
        ET.SubElement(made, "transition", {"target": _ids(state["default"])})
        return
    if "initial" in state:
        made.set("initial", _ids(state["initial"]))
    elif kind == "state" and "states" in state:
        made.set("initial", next(inner for inner, each in state["states"].items() if each.get("type") != "history"))
    for key, tag in (("entry", "onentry"), ("exit", "onexit")):
        _actions(ET.SubElement(made, tag), state[key])
    events = [(f"done.state.{name}", state.get("on_done", [])), *state.get("on", {}).items()]
    for event, ways in [*events, (None, state.get("always", []))]:
        for way in ways:
            _transition(made, event, way, path)
    for inner, each in state.get("states", {}).items():
        _state(made, inner, each, f"{path}.{inner}")


def _transition(around: ET.Element, event: str | None, way: Mapping[str, Any], path: str) -> None:
    # By 3.5 an internal transition that leads out of its source is external, and one without target has no type.
    targets = way.get("target", [])
    internal = way.get("internal") and targets and all(each.startswith(f"{path}.") for each in targets)
    made = ET.SubElement(around, "transition", {"type": "internal" if internal else "external"})
    if event is not None:
        made.set("event", event)
    if "target" in way:
        made.set("target", _ids(way["target"]))
    if "if" in way:
        made.set("cond", _expression(way["if"]))
    _actions(made, way.get("do", []))


def _actions(around: ET.Element, actions: list[Mapping[str, Any]]) -> None:
    for action in actions:
        if "raise" in action:
            ET.SubElement(around, "raise", {"event": action["raise"]})
        for name, text in action.get("set", {}).items():
            found = _TEXT.fullmatch(text)
            assert found is not None
            ET.SubElement(around, "assign", {"location": name, "expr": _expression(found[1])})


def _expression(text: str) -> str:
    return re.sub(r"In\('[^']*\.(\w+)'\)", r"In('\1')", text.replace("context.", ""))
