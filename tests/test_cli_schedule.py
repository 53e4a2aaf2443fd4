"""The commands of schedules, as real processes, and the synchronous client of the same store."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import test_cli
from test_cli import perdure

import perdure as face
from perdure import Settings
from perdure.actors.schedule_state import execution_of

environment = test_cli.environment

REPORT = """\
name: report
input: {type: object, required: [day]}
nodes:
  make: {set: "${{ input.day }}"}
output: "${{ nodes.make.output }}"
"""


def test_a_schedule_is_added_shown_and_changed_by_commands(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "report.yaml"
    file.write_text(REPORT)
    name, plan = ["nightly", str(file)], ["--zone", "Europe/Berlin", "--time-as", "day", "--overlap", "queue"]
    refused = perdure(environment, "schedule", "add", *name, "--cron", "61 * * * *", *plan, code=2)
    assert "the cron expression '61 * * * *' cannot be read: Bad minute" in refused.stderr
    added = perdure(environment, "schedule", "add", *name, "--cron", "30 2 * * *", *plan).stderr
    assert "nobody lets schedules fire now: bring up a cluster with perdure up" in added
    assert added.count("\nfires  ") == 5
    refused = perdure(environment, "schedule", "add", *name, "--every", "1h", *plan, code=2)
    assert "there is a schedule 'nightly' already" in refused.stderr
    (found,) = json.loads(perdure(environment, "schedule", "list", "--json").stdout)
    assert (found["name"], found["status"], len(found["next"])) == ("nightly", "active", 5)
    asked = perdure(environment, "schedule", "backfill", "nightly", "--from", "2026-03-28", "--to", "2026-03-30").stdout
    assert asked.split() == ["nightly-20260328T013000Z", "nightly-20260329T010000Z"]
    assert "paused: moving" in perdure(environment, "schedule", "pause", "nightly", "--reason", "moving").stderr
    shown = perdure(environment, "schedule", "show", "nightly").stderr
    assert "waiting    2, the first for 2026-03-28 02:30:00+01:00" in shown
    perdure(environment, "schedule", "resume", "nightly")
    perdure(environment, "schedule", "remove", "nightly")
    assert "no schedule 'nightly'" in perdure(environment, "schedule", "show", "nightly", code=2).stderr
    assert "is a schedule's" in perdure(environment, "show", "schedule:nightly", code=2).stderr


def test_the_hosts_of_a_client_let_schedules_fire(tmp_path: Path) -> None:
    with face.connect(Settings(store=tmp_path / "store", user="ann"), local=True) as client:
        at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=3)
        client.schedules.add("once", REPORT, at=at, time_as="day")
        client.schedules.add("daily", REPORT, cron="0 3 * * *", time_as="day")
        assert client.schedules.served()
        assert [each.name for each in client.schedules.list()] == ["daily", "once"]
        assert client.get(execution_of("once", at)).result(timeout=20) == at.isoformat().replace("+00:00", "Z")
        (execution,) = client.schedules.backfill("daily", "2026-03-28", "2026-03-28T12:00")
        assert client.get(execution).result(timeout=20) == "2026-03-28T03:00:00Z"
        assert client.schedules.pause("daily").status == "paused"
        assert client.schedules.resume("daily").status == "active"
        assert client.schedules.remove("daily").status == "removed"
        assert client.schedules.show("once").started == 1
        assert {row["id"] for row in client.executions()} == {execution, execution_of("once", at)}
