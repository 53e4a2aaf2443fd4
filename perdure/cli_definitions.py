"""The commands on definitions: validate, graph and schema. They need no log, no Ray and no server."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli_support import Store, only_data_on_stdout, print_json, say, settings_from, settings_of_existing
from perdure.errors import BadInput, DefinitionError, Problem

if TYPE_CHECKING:
    from perdure.definitions.loading import Definition

app = typer.Typer()


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(help="Workflow definitions, YAML or JSON.", show_default=False)],
    strict: Annotated[bool, typer.Option("--strict", help="Take warnings for errors.")] = False,
    tools: Annotated[
        bool, typer.Option("--tools", help="Import the code of the tools too, and check their calls against it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the problems as a JSON list on stdout.")] = False,
    sarif: Annotated[bool, typer.Option("--sarif", help="Print the problems as SARIF 2.1.0 on stdout.")] = False,
) -> None:
    """Check definitions without running anything; exit with 2 where one has an error.

    Example: perdure validate examples/hello.yaml --strict
    """
    if as_json and sarif:
        raise BadInput("--json and --sarif are two forms of the same; choose one")
    problems = [problem for file in files for problem in _problems(file, strict=strict, tools=tools)]
    problems.sort(key=lambda problem: problem.severity)  # errors first; within each, as they were found
    if as_json:
        print_json([asdict(problem) for problem in problems])
    elif sarif:
        from perdure.sarif import sarif_log

        print_json(sarif_log(problems))
    else:
        for problem in problems:
            say(str(problem))
    errors = sum(problem.severity == "error" for problem in problems)
    say(f"{_count(len(files), 'file')}: {_count(errors, 'error')}, {_count(len(problems) - errors, 'warning')}")
    if errors:
        raise typer.Exit(BadInput.exit_code)


@app.command()
def graph(
    what: Annotated[str, typer.Argument(help="A definition's file, or an execution's id.", show_default=False)],
    format: Annotated[str, typer.Option(help="mermaid, dot or svg.")] = "mermaid",
    store: Store = None,
) -> None:
    """Print a definition as a diagram, or an execution: its nodes and states in the colours of how they stand.

    Example: perdure graph order-42 --format svg > order.svg
    """
    from perdure.definitions.diagrams import diagram_of
    from perdure.definitions.dot import to_dot, to_svg
    from perdure.definitions.loading import load
    from perdure.definitions.mermaid import flowchart, state_diagram

    if format not in ("mermaid", "dot", "svg"):
        raise BadInput(f"--format {format}: it is one of mermaid, dot, svg")
    is_file = Path(what).is_file() or Path(what).suffix in (".yaml", ".yml", ".json")
    definition, marks = (load(what), {}) if is_file else asyncio.run(_ran(what, store))
    diagram = diagram_of(definition, marks)
    if format == "mermaid":
        text = state_diagram(diagram) if definition.workflow.states else flowchart(diagram)
    else:
        text = to_dot(diagram) if format == "dot" else to_svg(to_dot(diagram))
    typer.echo(text, nl=False)


async def _ran(execution: str, store: Path | None) -> tuple["Definition", dict[str, str]]:
    """Return the definition of an execution, and how its nodes and states stand by their paths."""
    from perdure.actors.listeners import active_states
    from perdure.cluster.client import AsyncClient
    from perdure.definitions.loading import load

    async with await AsyncClient.open(settings_of_existing(store), "none") as client:
        state = await client.get(execution).state()
        definition = load(await client.workflows.definition(state.started.digest))
    marks: dict[str, str] = {path: node.status for path, node in state.nodes.items()}
    return definition, marks | dict.fromkeys(active_states(state), "active")


@app.command()
def schema(
    what: Annotated[str, typer.Argument(help="workflow: definitions, for editors. events: what the log holds.")] = (
        "workflow"
    ),
    out: Annotated[Path | None, typer.Option(help="Write one file each into this folder.", show_default=False)] = None,
) -> None:
    """Print a JSON Schema: of definitions, or those of all events by name.

    Example: perdure schema > workflow.schema.json
    """
    schemas = _schemas(what)
    if out is None:
        print_json(schemas["Workflow"] if what == "workflow" else schemas)
        return
    out.mkdir(parents=True, exist_ok=True)
    for name, each in schemas.items():
        (out / file_name(name)).write_text(json.dumps(each, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _schemas(what: str) -> dict[str, Any]:
    if what == "workflow":
        from perdure.definitions.json_schema import workflow_schema

        return {"Workflow": workflow_schema()}
    if what == "events":
        from perdure.events.schema import event_schemas

        return event_schemas()
    raise BadInput(f"there is no schema of {what!r}; there are those of workflow and of events")


def file_name(schema: str) -> str:
    """Return the name of the file that a schema is published in; that of a stored form has its number."""
    from perdure.events.upcasting import FORMAT

    return "workflow.json" if schema == "Workflow" else f"{schema}.v{FORMAT}.json"


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _problems(file: Path, *, strict: bool, tools: bool) -> list[Problem]:
    from perdure.definitions.loading import load

    try:
        definition = load(file, strict=strict)
    except DefinitionError as error:
        return error.problems
    except BadInput as error:
        return [Problem(str(file), str(error).removeprefix(f"{file}: "))]
    return [*definition.warnings, *_of_tools(file, definition, strict=strict, code=tools)]


def _of_tools(file: Path, definition: "Definition", *, strict: bool, code: bool) -> list[Problem]:
    """Return what is wrong with the tools' files, and (`code`) with the calls of what is in them."""
    from perdure.definitions.includes import read_source
    from perdure.tool_checks import code_findings, missing_files

    findings = list(missing_files(definition))
    if code and not findings:
        with only_data_on_stdout():
            findings = list(code_findings(definition, settings_from({})))
    if not findings:
        return []
    source = read_source(file, str(file))  # once more: what is loaded has forgotten its lines
    problems = [
        source.problem(each.path, each.message, key=each.key, warning=each.warning and not strict) for each in findings
    ]
    return sorted(problems, key=lambda problem: (problem.line, problem.column))
