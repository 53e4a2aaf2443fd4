"""The tools of the examples of node kinds: a small shop, with everything that it needs made up."""

import asyncio

from perdure import tool


class CardExpired(Exception):
    """The customer's card is too old."""


class SoldOut(Exception):
    """There is nothing left to book."""


STOCK = {"board": 12, "knife": 0, "bowl": 3}


@tool
def stock_of(article: str) -> int:
    """Return how many of an article the shop has."""
    return STOCK[article]


@tool
async def send_mail(to: str, text: str) -> str:
    """Send a mail; return what was sent."""
    return f"to {to}: {text}"


@tool
async def offer(carrier: str, days: int, seconds: float) -> dict[str, str | int]:
    """Ask a carrier for an offer; it takes so many seconds to answer."""
    await asyncio.sleep(seconds)
    return {"carrier": carrier, "days": days}


@tool
async def print_progress(asked: int) -> dict[str, bool | int]:
    """Return how far the printer is, when asked for the so many-th time (from 0)."""
    return {"percent": min(100, 40 * (asked + 1)), "done": asked >= 2}


@tool
async def looks_like_fraud(rule: str, amount: float, country: str) -> bool:
    """Judge a payment by one rule."""
    return {"amount": amount > 1000, "country": country not in ("AT", "DE"), "odd": amount % 100 == 99}[rule]


@tool
async def charge(card: str, amount: float) -> str:
    """Charge a card; return the receipt. Raises CardExpired."""
    if card.endswith("19"):
        raise CardExpired(f"the card {card} is not valid any more")
    return f"receipt for {amount:g}"


@tool
async def book(what: str) -> str:
    """Book a part of a journey; return the booking. Raises SoldOut."""
    if what == "car":
        raise SoldOut("there is no car left")
    return f"{what}-1"


@tool
async def cancel_booking(booking: str, why: str) -> str:
    """Cancel a booking."""
    return f"{booking} cancelled: {why}"
