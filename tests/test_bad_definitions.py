"""Bad definitions: every mistake is told at its place, with the line, and with how to mend it."""

import subprocess
import sys
from pathlib import Path

import pytest
from bad_definitions import ALL, FORM, UNREADABLE, WARNED, Bad, bad_definitions
from good_definitions import CHART, CHILD, DAG, PARENT, SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.definitions.loading import load
from perdure.errors import BadInput, DefinitionError, Problem


def named(bad: Bad) -> str:
    return bad.name


def problems_in(text: str, *, strict: bool = False) -> list[Problem]:
    with pytest.raises(DefinitionError) as caught:
        load(text, strict=strict)
    return caught.value.problems


def problem_of(bad: Bad, problems: list[Problem]) -> Problem:
    """Return the problem at the place of the mistake that says what is expected."""
    there = [each for each in problems if (each.line, each.column) == bad.place]
    assert there, (bad.place, [str(each) for each in problems])
    said = [each for each in there if all(words in each.message for words in bad.says)]
    assert said, [each.message for each in there]
    return said[0]


def test_there_are_many_bad_definitions_and_no_two_are_the_same() -> None:
    assert len(ALL) >= 60
    assert len({text for _, text, _ in bad_definitions()}) == len(ALL)


@pytest.mark.parametrize("text", [DAG, CHART], ids=["dag", "chart"])
def test_the_good_definitions_have_not_even_warnings(text: str) -> None:
    assert load(text, strict=True).warnings == ()


@pytest.mark.parametrize("bad", ALL, ids=named)
def test_a_mistake_is_told_at_its_place_with_its_line_and_its_mend(bad: Bad) -> None:
    problem = problem_of(bad, problems_in(bad.text))
    assert problem.severity == "error"
    assert problem.text == bad.text.splitlines()[problem.line - 1]
    assert str(problem).startswith(f"definition:{problem.line}:{problem.column}: ")


@pytest.mark.parametrize("bad", WARNED, ids=named)
def test_what_is_probably_a_mistake_is_warned_of_and_refused_by_strict(bad: Bad) -> None:
    warning = problem_of(bad, list(load(bad.text).warnings))
    assert warning.severity == "warning"
    assert "warning: " in str(warning)
    assert problem_of(bad, problems_in(bad.text, strict=True)).severity == "error"


@pytest.mark.parametrize("bad", [*FORM, *UNREADABLE], ids=named)
def test_no_word_of_the_tools_within_reaches_the_user(bad: Bad) -> None:
    said = "\n".join(problem.message for problem in problems_in(bad.text)).lower()
    for word in (
        "input should",
        "valid dictionary",
        "instance of",
        "pydantic",
        "function-",
        "nonetype",
        "traceback",
        "list[",
    ):
        assert word not in said


def bad_with(words: str) -> Bad:
    (found,) = (bad for bad in ALL if words in bad.new and bad.base is DAG)
    return found


def test_a_mistake_in_the_form_does_not_hide_what_the_rest_means() -> None:
    words = ["timeuot: 30s", "dealy", "none_faild", "attempts: 2.5", "piad", "agent: riter", "clasify", "urgnt", "rase"]
    chosen = [bad_with(each) for each in words]
    assert {bad.structural for bad in chosen} == {True, False}
    text = DAG
    for bad in chosen:
        assert text.count(bad.old) == 1, bad.old
        text = text.replace(bad.old, bad.new)
    problems = problems_in(text)
    for bad in chosen:
        assert any(all(words in problem.message for words in bad.says) for problem in problems), bad.says
    assert len(problems) == len(chosen)
    assert problems == sorted(problems, key=lambda problem: (problem.line, problem.column))


@pytest.mark.parametrize("bad", [bad for bad in FORM if "\n" not in bad.old], ids=named)
def test_a_malformed_part_has_no_findings_that_only_follow_from_it(bad: Bad) -> None:
    places = {(problem.line, problem.column) for problem in problems_in(bad.text) if problem.severity == "error"}
    assert places == {bad.place}


def in_files(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / "parent.yaml"


@pytest.mark.parametrize(
    ("file", "old", "new", "line", "column", "says"),
    [
        ("parent", "agent: writer", "agent: writr", 4, 18, "asks agent 'writr'"),
        ("parent", "{total: 3}", "{totl: 3}", 7, 11, "workflow 'billing' needs 'total', which is not given; add it"),
        ("parent", "[shared.yaml]", "[share.yaml]", 2, 11, "share.yaml: there is no such file"),
        ("shared", "model: m", "modle: m", 2, 12, "unknown key 'modle'; did you mean 'model'?"),
        ("shared", "concurrency: 2", "concurrency: 0", 4, 24, "'concurrency' is at least 1, not 0"),
        ("shared", "tools: [tools.py]", "nodes: {}", 5, 1, "'nodes' belongs into the definition"),
        ("billing", "timeout: 10s", "timeout: soon", 4, 68, "not a duration: 'soon'"),
        ("billing", "input.total", "inptu.total", 4, 36, "unknown name 'inptu'"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_the_file_where_it_stands(
    tmp_path: Path, file: str, old: str, new: str, line: int, column: int, says: str
) -> None:
    texts = {"parent": PARENT, "shared": SHARED, "billing": CHILD}
    load(in_files(tmp_path, texts), strict=True)
    assert texts[file].count(old) == 1
    texts[file] = texts[file].replace(old, new)
    with pytest.raises(DefinitionError) as caught:
        load(in_files(tmp_path, texts))
    (problem,) = caught.value.problems
    assert (Path(problem.file).name, problem.line, problem.column) == (f"{file}.yaml", line, column)
    assert says in problem.message
    assert problem.text == texts[file].splitlines()[line - 1]


def test_the_command_line_shows_the_problems_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from perdure.cli import main

    monkeypatch.chdir(tmp_path)
    for number, (_, text, _) in enumerate(bad_definitions()):
        file = tmp_path / f"bad{number}.yaml"
        file.write_text(text)
        monkeypatch.setattr("sys.argv", ["perdure", "run", file.name, "--local"])
        with pytest.raises(SystemExit) as caught:
            main()
        out, said = capsys.readouterr()
        assert (caught.value.code, out) == (2, "")
        assert said.startswith(f"{file.name}:")
        assert "Traceback" not in said


def test_a_process_shows_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(ALL[0].text)
    command = [sys.executable, "-m", "perdure.cli", "run", "bad.yaml", "--local"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "bad.yaml:2:7: 'kind' is one of 'dag' or 'statechart', not 'dga'; did you mean 'dag'?"
    )
    assert "Traceback" not in done.stderr


def spots(text: str) -> st.SearchStrategy[tuple[int, str]]:
    characters = st.one_of(st.sampled_from(" :{}[]-\"'#&*!|>%@`,\n\t0aé\x00\u2028$?."), st.characters())
    return st.tuples(st.integers(0, len(text) - 1), characters)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([DAG, CHART]), st.data(), st.sampled_from(["replace", "insert", "remove"]))
def test_a_changed_character_gives_a_definition_or_problems_with_places(
    text: str, data: st.DataObject, how: str
) -> None:
    at, character = data.draw(spots(text))
    put = "" if how == "remove" else character
    changed = text[:at] + put + text[at + (how != "insert") :]
    lines = changed.splitlines() or [""]
    try:
        load(changed)
    except DefinitionError as error:
        for problem in error.problems:
            assert 1 <= problem.line <= len(lines) + 1, problem
            assert 1 <= problem.column <= max(map(len, lines)) + 1, problem
    except BadInput as error:
        assert str(error)
