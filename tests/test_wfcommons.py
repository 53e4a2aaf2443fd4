"""Scientific workflows of the WfCommons project become workflows of ours, and run with parents first."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from perdure.definitions.loading import load
from perdure.events.vocabulary import NodeScheduled, NodeSucceeded
from perdure.testing import play

ROOT = Path(__file__).parent.parent
workflow_of = runpy.run_path(str(ROOT / "examples" / "wfcommons" / "convert.py"))["workflow_of"]


@pytest.mark.parametrize("name", ["montage", "epigenomics", "seismology"])
def test_every_task_runs_once_and_after_its_parents(name: str) -> None:
    instance: dict[str, Any] = json.loads((ROOT / "tests" / "data" / f"wfcommons-{name}.json").read_text())
    workflow = workflow_of(instance)
    tasks = instance["workflow"]["specification"]["tasks"]
    assert len(load(workflow).plan.main.nodes) == len(tasks)
    played = play(workflow, tools={"noop": lambda task: task})
    assert played.output == len(tasks)
    done: list[str] = []
    parents = {task["id"]: set(task["parents"]) for task in tasks}
    for happened in played.events:
        if isinstance(happened.event, NodeScheduled):
            assert parents[happened.event.input["task"]] <= set(done)
        if isinstance(happened.event, NodeSucceeded):
            done.append(happened.event.output)
    assert sorted(done) == sorted(parents)
