"""Diagrams as Mermaid text: flowcharts for DAGs, state diagrams for statecharts."""

from collections.abc import Iterable, Iterator

from perdure.definitions.diagrams import MARKS, Box, Diagram, Edge, Group, Link, Shape

_PLAIN = frozenset(" _.,()-/=+*'!?@[]")
_SHAPES: dict[Shape, tuple[str, str]] = {
    "box": ("[", "]"), "round": ("(", ")"), "choice": ("{", "}"), "pause": ("([", "])"), "stop": ("{{", "}}"),
    "initial": ("((", "))"), "final": ("(((", ")))"), "history": ("((", "))"),
}  # fmt: skip
_ARROWS: dict[Link, str] = {
    "data": "-->", "control": "-.->", "switch": "==>", "catch": "-.->", "transition": "-->", "initial": "-->",
}  # fmt: skip


def flowchart(diagram: Diagram) -> str:
    """Return a Mermaid flowchart; whole lines are data, dotted ones control, thick ones a switch."""
    lines = ["flowchart TD", *_parts(diagram.root, 1)]
    for edge in diagram.edges:
        words = f"catch {edge.label}" if edge.link == "catch" else edge.label
        label = f'|"{_escaped(words)}"|' if words else ""
        lines.append(f"  {edge.source} {_ARROWS[edge.link]}{label} {edge.target}")
    return "\n".join([*lines, *_marks(diagram.root), ""])


def _marks(root: Group) -> Iterator[str]:
    """Yield the lines that colour what is marked."""
    marked: dict[str, list[str]] = {}
    for part in _all(root):
        if part.mark:
            marked.setdefault(part.mark, []).append(part.id)
    for mark, ids in marked.items():
        yield f"  classDef {mark} fill:{MARKS[mark]}"
        yield f"  class {','.join(ids)} {mark}"


def _all(group: Group) -> Iterator[Box | Group]:
    for part in group.parts:
        yield part
        if isinstance(part, Group):
            yield from _all(part)


def _parts(group: Group, depth: int) -> Iterator[str]:
    pad = "  " * depth
    for part in group.parts:
        if isinstance(part, Box):
            left, right = _SHAPES[part.shape]
            yield f'{pad}{part.id}{left}"{_text(part.lines) or " "}"{right}'
        else:
            yield f'{pad}subgraph {part.id}["{_text(part.lines)}"]'
            yield from _parts(part, depth + 1)
            yield f"{pad}end"
            if part.parallel:
                yield f"{pad}style {part.id} stroke-dasharray: 5 5"


def state_diagram(diagram: Diagram) -> str:
    """Return a Mermaid state diagram with composite states and parallel regions."""
    home = _homes(diagram.root)
    inside: dict[str, list[Edge]] = {}
    marks = {box.id for box in diagram.root.boxes() if box.shape == "initial"}
    across: list[Edge] = []  # Mermaid moves a state into the group in which an edge names it, so these stay outside
    for edge in diagram.edges:
        same = edge.source in marks or home[edge.source] == home[edge.target]
        (inside.setdefault(home[edge.source], []) if same else across).append(edge)
    lines = [
        "stateDiagram-v2",
        *_states(diagram.root, inside, 1),
        *_transitions(across, marks, "  "),
        *_marks(diagram.root),
    ]
    return "\n".join([*lines, ""])


def _homes(group: Group) -> dict[str, str]:
    """Return the group in which each box and group stands."""
    found = {part.id: group.id for part in group.parts}
    for part in group.parts:
        if isinstance(part, Group):
            found |= _homes(part)
    return found


def _states(group: Group, inside: dict[str, list[Edge]], depth: int) -> Iterator[str]:
    pad = "  " * depth
    for index, part in enumerate(group.parts):
        if group.parallel and index:
            yield f"{pad}--"
        if isinstance(part, Group):
            yield f'{pad}state "{_text(part.lines)}" as {part.id} {{'
            yield from _states(part, inside, depth + 1)
            yield f"{pad}}}"
        elif part.shape != "initial":
            yield f'{pad}state "{_text(part.lines)}" as {part.id}'
        if isinstance(part, Box) and part.shape == "final":
            yield f"{pad}{part.id} --> [*]"
    marks = {part.id for part in group.parts if isinstance(part, Box) and part.shape == "initial"}
    yield from _transitions(inside.get(group.id, []), marks, pad)


def _transitions(edges: Iterable[Edge], marks: set[str], pad: str) -> Iterator[str]:
    for edge in edges:
        source = "[*]" if edge.source in marks else edge.source
        yield f"{pad}{source} --> {edge.target}" + (f" : {_escaped(edge.label)}" if edge.label else "")


def _text(lines: Iterable[str]) -> str:
    return "<br/>".join(map(_escaped, lines))


def _escaped(text: str) -> str:
    """Write every character that Mermaid could take for its own as its number."""
    return "".join(char if char in _PLAIN or char.isalnum() or ord(char) > 127 else f"#{ord(char)};" for char in text)
