"""Diagrams as Graphviz text, and as SVG through Graphviz."""

from collections.abc import Iterator

from perdure.definitions.diagrams import MARKS, Box, Diagram, Edge, Group, Link, Shape
from perdure.errors import EnvironmentProblem

_SHAPES: dict[Shape, str] = {
    "box": "shape=box", "round": 'shape=box style="rounded"', "choice": "shape=diamond", "pause": "shape=hexagon",
    "stop": "shape=octagon", "initial": 'shape=circle style="filled" fillcolor="black" width=0.15',
    "final": "shape=box peripheries=2", "history": "shape=circle",
}  # fmt: skip
_LINES: dict[Link, str] = {
    "data": "", "control": 'style="dashed"', "switch": 'style="bold"', "catch": 'style="dotted" color="red"',
    "transition": "", "initial": "",
}  # fmt: skip


def to_dot(diagram: Diagram) -> str:
    """Return a Graphviz digraph; dashed lines are control, bold ones a switch, red ones a catch."""
    lines = [
        f"digraph {_quoted(*diagram.root.lines)} {{",
        '  compound=true; fontname="Helvetica"; node [fontname="Helvetica"]; edge [fontname="Helvetica" fontsize=11];',
        *_parts(diagram.root, "  "),
    ]
    inner = dict(_inner(diagram.root))
    return "\n".join([*lines, *(_edge(edge, inner) for edge in diagram.edges), "}", ""])


def to_svg(dot: str) -> str:
    """Lay out Graphviz text and return an SVG; raise EnvironmentProblem where pygraphviz is not installed."""
    try:
        import pygraphviz
    except ImportError as error:
        raise EnvironmentProblem(
            f"SVG needs pygraphviz ({error}); install it with: pip install 'perdure[diagrams]', or take --format dot"
        ) from None
    drawn: bytes = pygraphviz.AGraph(string=dot).draw(format="svg", prog="dot")
    return drawn.decode()


def _parts(group: Group, pad: str) -> Iterator[str]:
    for part in group.parts:
        if isinstance(part, Box):
            yield f"{pad}{part.id} [label={_quoted(*part.lines)} {_SHAPES[part.shape]}{_colour(part)}];"
        else:
            style = "dashed" if part.parallel else "rounded"
            yield f'{pad}subgraph cluster_{part.id} {{ label={_quoted(*part.lines)}; style="{style}";{_colour(part)}'
            yield from _parts(part, f"{pad}  ")
            yield f"{pad}}}"


def _colour(part: Box | Group) -> str:
    if not part.mark:
        return ""
    if isinstance(part, Group):
        return f' color="{MARKS[part.mark]}"; penwidth=3;'
    style = "rounded,filled" if part.shape == "round" else "filled"
    return f' style="{style}" fillcolor="{MARKS[part.mark]}"'


def _inner(group: Group) -> Iterator[tuple[str, list[str]]]:
    """Yield for every group the boxes in it: Graphviz draws edges between boxes, and cuts them at the group."""
    for part in group.parts:
        if isinstance(part, Group):
            yield part.id, [box.id for box in part.boxes()]
            yield from _inner(part)


def _edge(edge: Edge, inner: dict[str, list[str]]) -> str:
    source, target = inner.get(edge.source, [edge.source]), inner.get(edge.target, [edge.target])
    words = [f"label={_quoted(f'catch {edge.label}' if edge.link == 'catch' else edge.label)}"] if edge.label else []
    words += [_LINES[edge.link]] if _LINES[edge.link] else []
    if not set(source) & set(target):  # one within the other has no border to be cut at
        words += [f"ltail=cluster_{edge.source}"] if edge.source in inner else []
        words += [f"lhead=cluster_{edge.target}"] if edge.target in inner else []
    return f"  {source[0]} -> {target[0]}" + (f" [{' '.join(words)}]" if words else "") + ";"


def _quoted(*lines: str) -> str:
    escaped = (line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(escaped) + '"'
