"""Agents on the command line: their replies are followed, and what they remember is looked after."""

import json
from pathlib import Path

from test_cli import environment, perdure  # noqa: F401 (a fixture)

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
    assert perdure(environment, "sessions", "show", "ann 1").stdout.splitlines() == [
        "user: Hello", 'assistant: calls json_dumps {"obj": 1}', "tool: 1", "assistant: Good day,", "Ann.",
    ]  # fmt: skip
    assert perdure(environment, "sessions", "forget", "ann 1").stderr == "session ann 1 is forgotten\n"
    assert json.loads(perdure(environment, "sessions", "list", "--json").stdout) == {}


def test_a_key_in_the_setting_of_endpoints_is_refused_and_not_shown(environment: dict[str, str]) -> None:  # noqa: F811
    keyed = {**environment, "PERDURE_ENDPOINTS": '{"mine": {"key": "k-12345678"}}'}
    said = perdure(keyed, "list", code=2).stderr
    assert "endpoints.mine: a key is a secret: write it as '${{ secrets.NAME }}'" in said
    assert "k-12345678" not in said
