"""Random sound workflows: every kind of node, nested bodies, statecharts, and text that YAML could misread."""

from typing import Any

from hypothesis import strategies as st

from perdure.definitions.model import Workflow

TRICKY = [
    "", "yes", "no", "on", "off", "null", "~", "true", "1e5", "0o17", "0x1F", "1:30", "012", "<<", "=", ".5", "+1",
    "1_000", "2024-01-01", "-", "- a", "a: b", "a # b", "# c", "?", "? x", "|", ">", "!tag", "&a", "*a", "%x", "@x",
    "`x`", "'", '"', "two\nlines", "trailing \n", "\n", " lead", "end ", "tab\t", "é", "\u2028", "\u0085", "\x07",
    "\x7f", "\ufeff", "😀", "{a: b}", "[1]", "---", "...", ".inf", ".NaN", "Null", "1.", "0b1", "x" * 200, "a\r\nb",
    "\n  deep\n flat", "a\u2028\nb", "is }} and {{",
]  # fmt: skip
EXPRESSIONS = ["${{ input.x }}", "is ${{ input.n }}: #1", "${{ input['a'] == {'b': {}} }}"]
TEXT = st.sampled_from([*TRICKY, *EXPRESSIONS]) | st.text(max_size=20).filter(lambda text: "${{" not in text)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
DURATIONS = st.sampled_from(["5s", "1h30m", 90, 0.25, "2d"])
CONDITIONS = st.sampled_from([True, False, "input.n > 1", "${{ input.ok }}", "input['a b'] == 'x: #'"])
ERRORS = st.lists(st.sampled_from(["Timeout", "Unavailable", "on", "1e5"]), min_size=1, max_size=2, unique=True)
CALLS = st.sampled_from([{"agent": "judge"}, {"tool": "work"}, {"tool": "no"}, {"workflow": "billing@3"}])


def _optional(**parts: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    renamed = {key.removesuffix("_"): value for key, value in parts.items()}
    return st.fixed_dictionaries({}, optional=renamed)


WITH = st.dictionaries(TEXT, JSON, max_size=3)
MODIFIERS = _optional(
    description=TEXT, if_=CONDITIONS, join=st.sampled_from(["all_done", "none_failed"]), output=JSON, timeout=DURATIONS,
    retry=_optional(attempts=st.integers(1, 9), delay=DURATIONS, jitter=st.booleans(), on=ERRORS),
    catch=st.lists(st.fixed_dictionaries({"on": ERRORS, "output": JSON}), max_size=1),
)  # fmt: skip
OF_CALLS = _optional(
    priority=st.integers(0, 9),
    limit=st.sampled_from(["scarce", {"name": "scarce"}, [{"name": "scarce", "key": "input.n", "cost": 2}]]),
)
PLACEMENT = _optional(
    run_on=st.just("actor"),
    resources=_optional(
        num_cpus=st.sampled_from([0, 0.5, 2]), custom=st.dictionaries(TEXT, st.floats(0, 4), max_size=2)
    ),
    pool=_optional(min=st.integers(0, 1), max=st.integers(1, 3), idle=DURATIONS, concurrency=st.integers(1, 9)),
    runtime_env=_optional(working_dir=TEXT.filter(lambda text: "://" not in text), pip=st.just(["numpy==2.1.0"])),
)


def chart() -> st.SearchStrategy[dict[str, Any]]:
    """Return statecharts whose states follow each other, one of them with states and a history within."""
    actions = st.sampled_from([{"set": {"n": 1}}, {"raise": "no"}, [{"tool": "work", "with": {"a": "~"}}]])
    inner = {
        "initial": "in", "on_done": "end",
        "states": {"in": {"on": {"go": "out"}}, "out": {"type": "final"}, "h": {"type": "history", "default": "in"}},
    }  # fmt: skip
    both = {"type": "parallel", "states": {"l": {"states": {"x": {}}}, "r": {"states": {"y": {"on": {"up": "end"}}}}}}
    return st.builds(
        lambda event, time, do, output, middle: {
            "context": {"n": output},
            "states": {
                "start": {"entry": do, "on": {event: {"target": "middle", "if": "context.n == 1", "do": do}},
                          "after": {time: "middle"}},
                "middle": {**middle, "on": {"back": "middle.h"} if "initial" in middle else {"back": "end"}},
                "end": {"type": "final", "output": output},
            },
        },
        TEXT.map(_event), st.sampled_from(["30m", "1d", "${{ context.n }}"]), actions, JSON,
        st.sampled_from([inner, both, {"invoke": {"agent": "judge", "on_done": "end", "on_error": ["start"]}}]),
    )  # fmt: skip


def _event(text: str) -> str:
    """Return a name that an event may have: without spaces and stars, and no token empty."""
    return "".join("_" if each.isspace() or each in ".*" else each for each in text) + "!"


def _call(data: dict[str, Any], with_: dict[str, Any]) -> dict[str, Any]:
    return {**data, "with": with_}


def kinds(bodies: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Return nodes of every kind but `switch`, which needs others around it."""
    inner = bodies.map(lambda nodes: {"do": nodes}) | st.builds(_call, CALLS, WITH)
    one_of = [
        st.builds(_call, CALLS, WITH),
        chart().map(lambda made: {"statechart": made}),
        (DURATIONS | st.just("${{ input.days }}")).map(lambda time: {"wait": time}),
        st.sampled_from(["paid", "no"]).map(lambda name: {"wait": {"signal": name, "timeout": "2d"}}),
        TEXT.map(lambda title: {"approval": {"title": title, "assignees": [title], "form": {"type": "object"}}}),
        st.builds(lambda left, right: {"parallel": {"branches": {"no": left, "r": right}, "join": 1}}, inner, inner),
        st.builds(lambda body, output: {"foreach": {"items": [1, "no"], "output": output}, **body}, inner, JSON),
        st.builds(lambda body: {"loop": {"max_iterations": 3, "until": "loop.index > 1"}, **body}, inner),
        JSON.map(lambda items: {"aggregate": {"items": [items], "how": "collect"}}),
        JSON.map(lambda value: {"set": value}),
        TEXT.map(lambda text: {"fail": {"type": "no", "message": text}}),
    ]  # fmt: skip
    return st.builds(
        lambda kind, rest, how, where: {
            **rest, **kind, **(how if {"tool", "agent"} & kind.keys() else {}), **(where if "tool" in kind else {})
        },
        st.one_of(one_of), MODIFIERS, OF_CALLS, PLACEMENT,
    )  # fmt: skip


def _body(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """Name the nodes; each needs the one before, and the first three may be arms of a switch."""
    made: dict[str, Any] = {}
    for index, node in enumerate(nodes):
        made[f"n{index}"] = {**node, "needs": [f"n{index - 1}"]} if index % 2 else node
    if len(nodes) > 2:
        made["yes"] = {"switch": {"cases": [{"when": "input.n > 1", "then": "n0"}], "default": ["n2"]}}
    return made


def bodies(depth: int = 2) -> st.SearchStrategy[dict[str, Any]]:
    """Return bodies of nodes with bodies within them."""
    inner = bodies(depth - 1) if depth else st.just({"a": {"set": 1}})
    return st.lists(kinds(inner), min_size=1, max_size=3).map(_body)


_SHARED = {
    "agents": {"judge": {"model": "no", "instructions": "Be\njust. "}},
    "limits": {"scarce": {"concurrency": 2}},
    "concurrency": 3,
}
_DAGS = st.builds(
    lambda nodes, rest, output: {"name": "on", **_SHARED, "nodes": nodes, "output": output, **rest},
    bodies(),
    _optional(description=TEXT, on_failure=bodies(0), finally_=bodies(0), search=st.just({"no": "input.n"})),
    JSON,
)  # fmt: skip
_CHARTS = chart().map(lambda made: {"name": "1.5", "kind": "statechart", **_SHARED, **made})

WORKFLOWS: st.SearchStrategy[Workflow] = (_DAGS | _CHARTS).map(Workflow.model_validate)
"""Sound workflows."""
