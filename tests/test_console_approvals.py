"""What the command line shows of what a person is to decide, and of what models and tools say."""

from scenario import NOW, plan_of, started

from perdure.actors.state import NodeState
from perdure.cluster.listening import Heard
from perdure.console import Progress, _waits_for, console, show, show_rows
from perdure.console_streams import Saying, harmless
from perdure.events.entry import Happened
from perdure.events.vocabulary import NodeQueued, NodeScheduled


def test_an_approval_is_shown_with_all_that_it_is_about() -> None:
    asked = {"approval": True, "title": "agent 'a' asks to call 'refund'", "details": {"arguments": {"amount": 900}}}
    assert _waits_for(NodeState("waiting", 1, input=asked)).endswith('refund\'  {"arguments": {"amount": 900}}')
    assert _waits_for(NodeState("waiting", 1, input={"approval": True, "title": "Pay?"})) == "Pay?"


def test_a_node_that_waits_for_room_says_for_what() -> None:
    progress, plan = Progress("x"), plan_of({"a": {"tool": "t"}})
    for event in (started(plan), NodeScheduled("a", 1), NodeQueued("a", 1, "waiting for num_gpus=1")):
        progress.feed(Happened("x", 1, 1, NOW, event))
    with console.capture() as shown:
        show(progress)
    lines = [" ".join(line.split()) for line in shown.get().splitlines()]
    assert lines[1:3] == ["1 queued: waiting for num_gpus=1", "a queued attempt 1 waiting for num_gpus=1"]


def test_what_a_model_says_does_not_steer_the_terminal() -> None:
    heard = Heard("n", 1, "text", "ok\x1b]0;owned\x07\x1b[2J \u202edrawkcab\tÄ\n")
    assert Saying().take(heard) == ["n> ok\ufffd]0;owned\ufffd\ufffd[2J \ufffddrawkcab\tÄ"]
    assert harmless(f"{NOW:%H:%M}\n") == f"{NOW:%H:%M}\n"


def test_colons_in_what_people_have_named_stay_what_they_are() -> None:
    with console.capture() as shown:
        show_rows({"name": "name"}, [{"name": "webhook:pager:"}, {"name": ":smile:"}], "")
    assert shown.get().split() == ["name", "webhook:pager:", ":smile:"]
