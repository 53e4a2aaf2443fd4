"""What an expression is known to read before it runs."""

import pytest

from perdure.definitions.expressions import parse


def reads(text: str) -> list[str]:
    """Return the reads as text: the path, `?` where it is guarded, `~` where it is conditional."""
    marks = [("?" if read.guarded else "") + ("~" if read.conditional else "") for read in parse(text).reads]
    return [".".join(read.path) + mark for read, mark in zip(parse(text).reads, marks, strict=True)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nodes.a.output.x", ["nodes.a.output.x"]),
        ("nodes['a'].output[0].x", ["nodes.a.output.[].x"]),
        ("input.items[-1].x", ["input.items.[].x"]),
        ("input.items[1:][0].x", ["input.items.[].x"]),
        ("input.map[input.key].x", ["input.map", "input.key"]),
        ("input.items[input.a:input.b]", ["input.items", "input.a", "input.b"]),
        ("input.name.upper().strip(input.x)", ["input.name", "input.x"]),
        ("input.get('a')", ["input.a?"]),
        ("input.get('a', {}).get('b', nodes.n.output).c", ["input.a.b.c?", "nodes.n.output"]),
        ("input.get(input.key)", ["input", "input.key"]),
        ("default(input.a.b, input.c)", ["input.a.b?", "input.c~"]),
        ("default(input.a[input.b].c, 0)", ["input.a?", "input.b?"]),
        ("input.a if input.b else input.c", ["input.b", "input.a~", "input.c~"]),
        ("input.a and input.b or input.c", ["input.a", "input.b~", "input.c~"]),
        ("input.a < input.b < input.c", ["input.a", "input.b", "input.c~"]),
        ("[i.x for i in input.items if i.y]", ["input.items", "input.items.[].y~", "input.items.[].x~"]),
        ("[j for i in input.a for j in i.b]", ["input.a", "input.a.[].b~", "input.a.[].b.[]~"]),
        ("[v.x for k, v in input.a.items()]", ["input.a"]),
        ("{k: input.b for k in input.a.keys()}", ["input.a", "input.b~"]),
        ("(input.a + input.b).x", ["input.a", "input.b"]),
        ("len", ["len"]),
        ("len(input)", ["input"]),
        ("sorted(values=input.a)", ["input.a"]),
        ("[input.a, input.a]", ["input.a", "input.a"]),
        ("1 + 1", []),
    ],
)
def test_it_knows_the_paths_that_it_reads(text: str, expected: list[str]) -> None:
    assert reads(text) == expected


@pytest.mark.parametrize(
    ("text", "roots", "variables"),
    [
        ("[n for n in input.a] + n", frozenset({"input", "n"}), frozenset({"n"})),
        ("n + [n for n in input.a]", frozenset({"input", "n"}), frozenset({"n"})),
        ("[n for n in n]", frozenset({"n"}), frozenset({"n"})),
        ("[[n for n in m] for m in input.a]", frozenset({"input"}), frozenset({"m", "n"})),
        ("[x for x in [y for y in input.a] if y]", frozenset({"input", "y"}), frozenset({"x", "y"})),
        ("[x for x in input.a for y in z for z in x]", frozenset({"input", "z"}), frozenset({"x", "y", "z"})),
    ],
)
def test_a_variable_is_known_only_within_its_comprehension(
    text: str, roots: frozenset[str], variables: frozenset[str]
) -> None:
    expression = parse(text)
    assert (expression.roots, expression.variables) == (roots, variables)


def test_it_knows_the_nodes_that_it_reads() -> None:
    assert parse("[n + nodes.a.output for n in input.items] + nodes['b'].output + nodes.a.output").nodes == {"a", "b"}


def test_it_knows_where_its_reads_stand_in_characters() -> None:
    text = "'é€😀' + input.a + \\\n input.b"
    assert [text[read.offset :][:7] for read in parse(text).reads] == ["input.a", "input.b"]
