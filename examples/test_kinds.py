"""How a user tests workflows: the examples of this folder, played in virtual time. Run it with pytest."""

from pathlib import Path

from perdure.testing import approve, fails, play, signal, takes

KINDS = Path(__file__).parent / "kinds"


def test_a_customer_who_pays_in_time_is_thanked() -> None:
    played = play(KINDS / "wait.yaml", tools={"send_mail": "sent"}, tell=[signal("paid", {"amount": 30}, at="9s")])
    assert played.inputs("send_mail")[-1]["text"] == "Thank you!"


def test_a_customer_who_does_not_pay_is_reminded() -> None:
    played = play(KINDS / "wait.yaml", tools={"send_mail": "sent"})
    assert played.inputs("send_mail")[-1]["text"] == "Please pay now."
    assert played.took.total_seconds() == 10.1


def test_a_refund_that_nobody_decides_is_not_paid() -> None:
    played = play(KINDS / "approval.yaml", tools={})
    assert (played.output["approved"], played.took.days, played.calls) == (False, 2, [])


def test_a_refund_that_is_approved_is_paid() -> None:
    told = [approve("ask", by="ann", data={"reason": "late"}, at="1d")]
    played = play(KINDS / "approval.yaml", tools={"send_mail": lambda to, text: text}, tell=told)
    assert played.output == {"approved": True, "by": "ann", "mail": "You get 120 back: late."}


def test_the_fastest_two_carriers_win() -> None:
    def offer(carrier: str, days: int, seconds: float) -> object:
        return takes(seconds, {"carrier": carrier, "days": days})

    played = play(KINDS / "parallel.yaml", tools={"offer": offer})
    assert played.output.keys() == {"quick", "steady"}
    assert played.happened("NodeCancelled")[0].node == "offers/slow/do"


def test_a_card_that_is_busy_is_tried_again() -> None:
    played = play(KINDS / "catch.yaml", tools={"charge": [fails("Busy"), "receipt"]})
    assert played.output == {"result": "receipt", "how": "succeeded"}
