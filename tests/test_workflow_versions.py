"""A registered workflow: what happened to it, and what may happen next."""

from collections.abc import Callable

import pytest

from perdure.cluster.references import Reference, is_reference, parse_reference
from perdure.cluster.workflow_versions import (
    Activated,
    Deprecated,
    Event,
    Moved,
    Registered,
    RegisteredWorkflow,
    activate,
    check_start,
    deprecate,
    evolve,
    register,
)
from perdure.errors import BadInput, WorkflowDeprecated, WorkflowNotFound

Step = Callable[[RegisteredWorkflow], Event | None]
EMPTY = RegisteredWorkflow("order")


def digest(mark: str) -> str:
    return f"sha256:{mark * 64}"


def registering(mark: str, base: str | None = None) -> Step:
    return lambda state: register(state, digest(mark), base, "ann")


def activating(version: int) -> Step:
    return lambda state: activate(state, version, "ann")


def deprecating(version: int, why: str = "old") -> Step:
    return lambda state: deprecate(state, version, why, "ann")


def after(*steps: Step) -> RegisteredWorkflow:
    state = EMPTY
    for step in steps:
        event = step(state)
        assert event is not None
        state = evolve(state, event)
    return state


def test_versions_count_up_and_the_last_one_is_active() -> None:
    state = after(registering("a"), registering("b"))
    assert [(each.version, each.digest, each.by) for each in state.versions] == [
        (1, digest("a"), "ann"),
        (2, digest("b"), "ann"),
    ]
    assert state.active == 2
    assert state.versions[0].at.tzname() == "UTC"


def test_an_earlier_definition_again_changes_nothing() -> None:
    assert registering("a")(after(registering("a"), registering("b"))) is None


def test_the_same_definition_from_another_folder_moves_its_tools() -> None:
    state = after(registering("a", "/one"))
    assert registering("a", "/one")(state) is None
    assert isinstance(registering("a", "/two")(state), Moved)
    assert after(registering("a", "/one"), registering("a", "/two")).at(1).base == "/two"


def test_an_activated_version_stays_active_when_others_are_registered() -> None:
    state = after(registering("a"), registering("b"), activating(1), registering("c"))
    assert (state.active, state.pinned) == (1, 1)


def test_after_the_last_version_was_activated_new_ones_are_active_at_once() -> None:
    state = after(registering("a"), registering("b"), activating(1), activating(2), registering("c"))
    assert (state.active, state.pinned) == (3, None)


def test_what_is_so_already_makes_no_event() -> None:
    assert activating(1)(after(registering("a"))) is None
    assert deprecating(1)(after(registering("a"), deprecating(1))) is None
    assert isinstance(deprecating(1, "worse")(after(registering("a"), deprecating(1))), Deprecated)


def test_a_deprecated_version_starts_nothing_and_the_error_names_both_ways_out() -> None:
    state = after(registering("a"), registering("b"), deprecating(2, "charges twice"))
    check_start(state, state.at(1))
    with pytest.raises(WorkflowDeprecated, match=r"charges twice.*activate order@1 for another.*activate order@2"):
        check_start(state, state.at(2))


def test_the_last_version_left_names_only_the_way_back() -> None:
    state = after(registering("a"), deprecating(1))
    with pytest.raises(WorkflowDeprecated, match="old; perdure workflows activate order@1 to use it again"):
        check_start(state, state.at(1))


def test_to_activate_a_deprecated_version_lifts_that() -> None:
    state = after(registering("a"), deprecating(1), activating(1))
    check_start(state, state.at(1))
    assert isinstance(activating(1)(after(registering("a"), deprecating(1))), Activated)


@pytest.mark.parametrize("step", [activating(2), deprecating(2)])
def test_what_is_not_there_cannot_be_changed(step: Step) -> None:
    with pytest.raises(WorkflowNotFound, match="has no version 2; its last one is 1"):
        step(after(registering("a")))


def test_a_deprecation_needs_a_reason() -> None:
    with pytest.raises(BadInput, match="say why version 1"):
        deprecating(1, " ")(after(registering("a")))


def test_a_version_is_found_by_its_number_its_digest_or_because_it_is_active() -> None:
    state = after(registering("a"), registering("b"))
    assert isinstance(registering("c")(state), Registered)
    assert state.find(parse_reference("order")).version == 2
    assert state.find(parse_reference("order@1")).version == 1
    assert state.find(parse_reference("order@sha256:aaaaaaaa")).version == 1
    with pytest.raises(WorkflowNotFound, match="perdure workflows show order"):
        state.find(parse_reference("order@sha256:cccccccc"))
    twins = after(
        lambda was: register(was, digest("a"), None, "x"), lambda was: register(was, f"{digest('a')[:-1]}b", None, "x")
    )
    with pytest.raises(BadInput, match="fits 2 versions"):
        twins.find(parse_reference("order@sha256:aaaaaaaa"))


def test_a_reference_is_a_name_and_maybe_a_version_or_digest() -> None:
    assert parse_reference("a.b-c") == Reference("a.b-c")
    assert parse_reference("a@12") == Reference("a", 12)
    assert parse_reference(f"a@{digest('f')}") == Reference("a", None, "f" * 64)


@pytest.mark.parametrize(
    "text", ["a@", "a@0", "a@v1", "a@sha256:abc", "a@sha256:XYZXYZXY", "a@1@2", "", "@1", "a b", "a@9999999999"]
)
def test_what_is_no_reference_is_told_how_to_write_one(text: str) -> None:
    with pytest.raises(BadInput, match="write NAME, NAME@3"):
        parse_reference(text)


@pytest.mark.parametrize("text", ["order", "order@3", "order@sha256:abcdef01", "a.b", "order@"])
def test_a_word_is_a_reference(text: str) -> None:
    assert is_reference(text)


@pytest.mark.parametrize(
    "workflow",
    [
        "order.yaml",
        "order.YML",
        "x.json",
        "a/order",
        "./order",
        "{name: x}",
        "name: x\n",
        "",
        "a" * 5000,
        "a b",
        {},
        None,
    ],
)
def test_a_file_or_text_or_anything_else_is_no_reference(workflow: object) -> None:
    assert not is_reference(workflow)
