"""SIGKILL at every point of an agent's run: what was recorded is never asked, paid or done again."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from perdure.cluster.nats_server import NatsServer
from perdure.testing import Model, Reply

DRIVER = Path(__file__).parent / "agent_crash_driver.py"
LOOK = "agent_crash_driver_look"
SCRIPT = [
    Reply({"good": "perhaps"}, turn=0, match="Judge"),  # an agent without tools has its reply mended in a turn too
    Reply({"good": True}, turn=1, match="Judge"),
    Reply(turn=0, calls=[{LOOK: {"x": 0}}]),
    Reply(turn=1, calls=[{LOOK: {"x": 1}}, {LOOK: {"x": 2}}]),
    Reply(turn=2, calls=[{"unknown": {}}]),
    Reply(turn=3, calls=[{LOOK: {"x": 3}}]),
    Reply({"n": "no number"}, turn=4),
    Reply({"n": 4}, turn=5),
]

REPLIES = [*(f"n[{turn}]/model" for turn in range(6)), "judged[0]/model", "judged[1]/model"]


@pytest.mark.timeout(180)
def test_sigkill_at_every_point_of_six_turns_with_four_calls_asks_at_most_what_was_in_flight_again(
    server: NatsServer, tmp_path: Path
) -> None:
    with Model(SCRIPT) as model:
        command = [sys.executable, DRIVER, server.url, server.token, model.base_url, tmp_path]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(runs) > 50, "there are points before and after each entry, each reply and each call"
    asked = Counter(_reply_of(body["messages"]) for body in model.requests)
    effects = Counter((tmp_path / "effects").read_text().splitlines())
    for run in runs:
        execution, recorded = run["execution"], set(run["recorded"])
        assert run["output"] == {"n": {"n": 4}, "judged": {"good": True}}, run
        assert run["remembered"] == 1, f"{execution}: what was said is remembered once"
        again = {reply for reply in REPLIES if asked[execution, reply] > 1}
        assert all(asked[execution, reply] in (1, 2) for reply in REPLIES), run
        assert len(again) <= 1, f"{execution}: only what was in flight is asked again, not {again}"
        assert not again & recorded, f"{execution}: a recorded reply is asked again"
        calls = [("n[0]", 0, ""), ("n[1]", 1, ""), ("n[1]", 2, "~2"), ("n[3]", 3, "")]
        for body, x, times in calls:
            assert effects[f"{execution} {x}"] == 1 or f"{body}/{LOOK}{times}" not in recorded, run
    for reply in REPLIES:
        assert any(asked[run["execution"], reply] == 2 for run in runs), (
            f"{reply} is asked again where it was in flight"
        )


def _reply_of(messages: list[dict[str, str]]) -> tuple[str, str]:
    """Return the execution that asks, and the path of the reply that it asks for."""
    execution = re.search(r"for (\S+)\.", messages[1]["content"])
    assert execution is not None
    node = "judged" if messages[0]["content"].startswith("Judge") else "n"
    return execution[1], f"{node}[{sum(each['role'] == 'assistant' for each in messages)}]/model"
