"""The page of definitions: its workflows load and run, its reference is that of the model, its links lead somewhere."""

import re
from pathlib import Path
from typing import Any

import pytest
from test_docs import generator

from perdure.definitions.loading import load
from perdure.definitions.model import Workflow
from perdure.definitions.nodes import KINDS
from perdure.testing import Model, Played, approve, fails, play, signal

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "definitions.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
(DESK,) = [block for block in BLOCKS if block.startswith("name: refund-desk")]


def block(name: str) -> str:
    (found,) = [each for each in BLOCKS if each.startswith(f"name: {name}\n") and "workflows:" not in each]
    return str(found)


def test_every_workflow_of_the_page_loads_without_a_warning() -> None:
    assert len(BLOCKS) > 10
    for each in BLOCKS:
        assert not load(each).warnings


def test_the_reference_is_generated_from_the_model() -> None:
    assert generator().definitions_page(PAGE) == PAGE


def test_every_key_of_the_model_has_a_row_and_every_kind_a_section() -> None:
    reference = PAGE.partition("<!-- reference -->")[2]
    schema = str(Workflow.model_json_schema(by_alias=True))
    for key in set(re.findall(r"'properties': \{'(\w+)'", schema)):
        assert f"| `{key}` |" in reference
    for kind in KINDS:
        assert f"#### {kind} node" in reference


def test_the_links_within_the_pages_lead_somewhere() -> None:
    for file in DOCS.glob("*.md"):
        for target in re.findall(
            r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", file.read_text("utf-8"), flags=re.DOTALL)
        ):
            if target.startswith("http"):
                continue
            name, _, anchor = target.partition("#")
            other = (file.parent / name) if name else file
            assert other.exists(), f"{file.name}: {target}"
            if anchor:
                titles = re.findall(r"^#+ (.+)$", other.read_text("utf-8"), re.MULTILINE)
                slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
                assert slugs.count(anchor) == 1, f"{file.name}: {target}"


def test_the_replies_of_the_page_answer_each_agent_of_the_refund_desk(tmp_path: Path) -> None:
    (replies,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "replies.yaml"
    file.write_text(replies, encoding="utf-8")
    with Model.from_file(file):
        matches = re.findall(r"match: (.+)", replies)
    agents = load(DESK).workflow.agents.values()
    assert [[match for match in matches if re.search(match, each.instructions)] for each in agents] == [
        [match] for match in matches
    ]


READ = {"claims": ["late", "broken"], "amount": 250}


def desk(**parts: Any) -> Played:
    tools: dict[str, Any] = {
        "lookup_order": {"order": "A-1"}, "check_claim": True, "pay_back": "paid", "charge_again": None, "note": None,
    }  # fmt: skip
    agents = {"triage": READ, "writer": "Dear customer", **parts.pop("agents", {})}
    tools |= parts.pop("tools", {})
    return play(DESK, {"message": "It came late.", "order": "A-1"}, tools=tools, agents=agents, **parts)


def test_the_refund_desk_has_ten_nodes_and_pays_what_a_person_approves() -> None:
    assert len(load(DESK).workflow.nodes) == 10
    paid = desk(tell=[approve("approve", by="ann", at="1d")])
    assert paid.output == {"reply": "Dear customer", "paid": True}
    assert paid.inputs("writer") == [{"message": "It came late.", "paid": True}]
    assert paid.nodes["finally/log"].status == "succeeded"


def test_the_refund_desk_does_not_pay_without_an_answer_or_without_a_reason() -> None:
    assert desk().output["paid"] is False
    refused = desk(tools={"check_claim": fails("Unknown")})
    assert refused.nodes["refuse"].output == "there is nothing to pay back"
    assert (refused.output["paid"], refused.inputs("pay_back")) == (False, [])


def test_the_refund_desk_pays_small_amounts_without_asking() -> None:
    assert desk(agents={"triage": {**READ, "amount": 20}}).output["paid"] is True


def test_a_parcel_of_little_value_is_sent_without_insurance() -> None:
    tools = {"pack": "packed", "insure": "insured", "send": "sent"}
    assert _parcel(20, tools).inputs("send") == [{"order": "A-1", "insured": False}]
    assert _parcel(200, tools).inputs("send") == [{"order": "A-1", "insured": True}]


def _parcel(value: int, tools: dict[str, Any]) -> Played:
    (found,) = [each for each in BLOCKS if each.startswith("name: parcel") and "kind:" not in each]
    return play(found, {"order": "A-1", "value": value}, tools=tools)


@pytest.mark.parametrize(
    ("topic", "called"), [("refund", ["refund"]), ("delivery", ["track", "mail"]), ("?", ["ticket"])]
)
def test_a_message_is_routed_by_its_topic(topic: str, called: list[str]) -> None:
    tools: dict[str, Any] = {**dict.fromkeys(("refund", "track", "mail", "ticket"), "ok"), "triage": {"topic": topic}}
    played = play(block("route"), {"text": "Hi", "order": "A-1"}, tools=tools)
    assert [call.name for call in played.calls][1:] == called
    assert played.output == {"done": "done"}


def test_a_card_that_has_expired_leads_to_its_handler() -> None:
    tools = {"charge": fails("CardExpired", "too old"), "mail": "asked"}
    played = play(block("charge"), {"card": "1", "amount": 5}, tools=tools)
    assert played.nodes["note"].output == "asked"
    played = play(block("charge"), {"card": "1", "amount": 5}, tools={"charge": fails("Refused", "no")})
    assert played.nodes["note"].output == {"paid": False, "why": "no"}


def test_the_claims_are_gone_through_and_the_printer_is_asked_until_it_is_done() -> None:
    given = {"customers": [{"address": "a"}, {"address": "b"}], "claims": [{"text": "t", "url": "u"}]}
    tools = {"mail": None, "fetch": "page", "progress": lambda asked: {"done": asked == 3}}
    played = play(block("claims"), given, tools=tools, agents={"judge": "yes"})
    assert played.nodes["checked"].output == [{"claim": "t", "verdict": "yes"}]
    assert [each["text"] for each in played.inputs("mail")] == ["number 1", "number 2"]
    assert played.took.total_seconds() == 40


def test_the_offers_are_raced_and_the_judges_vote() -> None:
    tools = {"offer": lambda carrier: {"price": 5}, "judge": lambda rule: rule != "b"}
    played = play(block("offers"), tools=tools)
    assert played.output["verdict"] == {"winner": True, "votes": 2, "of": 3}
    assert len(played.output["race"]) == 1


def test_the_refund_waits_for_the_goods_and_for_a_person() -> None:
    told = [signal("goods_back", {"order": "A-1"}, at="3d"), approve("approve", by="ann", data={"reason": "late"})]
    played = play(block("refund"), {"amount": 5}, tools={"pay": "paid"}, tell=told)
    assert played.output == {"monday": None, "pay": "paid"}


def test_the_journey_is_undone_in_reverse_order() -> None:
    tools = {"book": lambda what: fails("SoldOut", "none left") if what == "car" else what}
    played = play(block("journey"), tools={**tools, "unbook": None, "unbook_all": None, "mail": None})
    assert [call.node for call in played.calls][3:] == [
        "hotel~undo", "flight~undo", "on_failure/tell", "finally/close",
    ]  # fmt: skip
    assert played.inputs("unbook") == [{"booking": "flight", "why": "none left"}]
    assert played.inputs("unbook_all") == [{"input": {"what": "hotel"}, "output": "hotel"}]
