"""Agents on the command line: their replies are followed, and what they remember is looked after."""

import json
import subprocess
from pathlib import Path
from typing import Any

from test_cli import command, environment, perdure, wait_for  # noqa: F401 (a fixture)

SUPPORT = """\
name: support
agents:
  clerk: {model: m, instructions: Help., tools: ["json:dumps"]}
nodes:
  answer: {agent: clerk, session: "${{ input.customer }}", with: {message: "${{ input.message }}"}}
"""
REPLIES = """\
- {turn: 0, match: Hello, calls: [{json_dumps: {obj: 1}}]}
- {turn: 1, match: Hello, reply: "Good day,\\nAnn."}
"""


def test_what_a_model_says_is_followed_and_its_session_is_listed_shown_and_forgotten(
    environment: dict[str, str],  # noqa: F811
    tmp_path: Path,
) -> None:
    (tmp_path / "support.yaml").write_text(SUPPORT)
    (tmp_path / "replies.yaml").write_text(REPLIES)
    given = json.dumps({"customer": "ann 1", "message": "Hello"})
    files = [str(tmp_path / "support.yaml"), "--replies", str(tmp_path / "replies.yaml")]
    done = perdure(environment, "run", *files, "--local", "--id", "s-1", "--input", given)
    assert json.loads(done.stdout) == {"answer": "Good day,\nAnn."}
    lines = done.stderr.splitlines()
    assert lines.index("answer[1]/model> Good day,") + 1 == lines.index("answer[1]/model> Ann.")
    assert any(line.startswith("answer[0]/json_dumps  succeeded") for line in lines)
    assert perdure(environment, "sessions", "list").stdout == "ann 1  1\n"
    for words in (("sessions", "show", "ann 1"), ("transcript", "s-1", "answer")):
        assert perdure(environment, *words).stdout.splitlines() == [
            "user: Hello", 'assistant: calls json_dumps {"obj": 1}', "tool: 1", "assistant: Good day,", "Ann.",
        ]  # fmt: skip
    assert "no agent took turns" in perdure(environment, "transcript", "s-1", "answr", code=2).stderr
    assert perdure(environment, "sessions", "forget", "ann 1").stderr == "session ann 1 is forgotten\n"
    assert json.loads(perdure(environment, "sessions", "list", "--json").stdout) == {}


def test_a_key_in_the_setting_of_endpoints_is_refused_and_not_shown(environment: dict[str, str]) -> None:  # noqa: F811
    keyed = {**environment, "PERDURE_ENDPOINTS": '{"mine": {"key": "k-12345678"}}'}
    said = perdure(keyed, "list", code=2).stderr
    assert "endpoints.mine: a key is a secret: write it as '${{ secrets.NAME }}'" in said
    assert "k-12345678" not in said


WAITS = '''\
import time
from pathlib import Path
from typing import Any
from perdure import tool

@tool
def look(x: int) -> int:
    """Wait until somebody lets it go on."""
    here = Path(__file__).parent
    (here / "waiting").touch()
    while not (here / "go").exists():
        time.sleep(0.02)
    return x
'''


def test_a_second_terminal_follows_what_a_model_says_while_it_says_it(
    environment: dict[str, str],  # noqa: F811
    tmp_path: Path,
) -> None:
    text = SUPPORT.replace("json:dumps", "look").replace("agents:", "tools: [./waits.py]\nagents:", 1)
    (tmp_path / "support.yaml").write_text(text)
    (tmp_path / "waits.py").write_text(WAITS)
    (tmp_path / "replies.yaml").write_text(REPLIES.replace("json_dumps: {obj: 1}", "look: {x: 1}"))
    run = command(
        "run", str(tmp_path / "support.yaml"), "--replies", str(tmp_path / "replies.yaml"), "--local", "--id", "s-1",
        "--set", "customer=ann", "--set", "message=Hello",
    )  # fmt: skip
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(run, **pipes) as running:
        wait_for(tmp_path / "waiting")
        with subprocess.Popen(command("show", "s-1", "--follow"), **pipes) as following:
            assert following.stderr is not None
            while "look  running" not in following.stderr.readline():
                pass
            (tmp_path / "go").touch()
            _, told = following.communicate(timeout=30)
        running.communicate(timeout=30)
    lines = told.splitlines()
    assert lines.index("answer[1]/model> Good day,") + 1 == lines.index("answer[1]/model> Ann.")
