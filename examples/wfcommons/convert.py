"""Makes a perdure workflow of a WfCommons instance: every task a node, its parents what it needs.

    pip install wfcommons
    python examples/wfcommons/convert.py montage.json > montage.yaml
    perdure run montage.yaml

An instance (WfFormat 1.5, https://wfcommons.org/format) is recorded from a real scientific workflow, or generated:
`WorkflowGenerator(MontageRecipe.from_num_tasks(2000)).build_workflow().write_json(Path("montage.json"))`.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import perdure
from perdure import Workflow

TOOLS = Path(__file__).parent / "tools.py"


def workflow_of(instance: dict[str, Any], tools: str = str(TOOLS)) -> Workflow:
    """Return the workflow of a WfCommons instance; each task calls the tool `noop` with its id."""
    tasks = instance["workflow"]["specification"]["tasks"]
    nodes = {
        _name(task["id"]): {
            "tool": "noop",
            "needs": [_name(each) for each in task["parents"]],
            "with": {"task": task["id"]},
        }
        for task in tasks
    }
    name = re.sub(r"[^A-Za-z0-9._-]", "-", instance["name"])[:100]
    return Workflow.model_validate({"name": name, "tools": [tools], "nodes": nodes, "output": len(nodes)})


def _name(task: str) -> str:
    name = re.sub(r"\W", "_", task, flags=re.ASCII)
    return name if re.match(r"[A-Za-z_]", name) else f"_{name}"


if __name__ == "__main__":
    print(perdure.to_yaml(workflow_of(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
