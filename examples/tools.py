"""The tools of customer_support.yaml: a small shop's orders, its knowledge base, and its ticket desk."""

import zlib
from typing import Literal, TypedDict

from perdure import tool


class Order(TypedDict):
    """What the shop knows of an order."""

    order: str
    status: str
    carrier: str | None
    arrives: str | None


class Article(TypedDict):
    """One article of the knowledge base."""

    title: str
    text: str


class UnknownOrder(Exception):
    """The shop has no such order."""


ORDERS: dict[str, Order] = {
    "A-1001": {"order": "A-1001", "status": "shipped", "carrier": "Parcel Post", "arrives": "2026-12-02"},
    "A-1002": {"order": "A-1002", "status": "being packed", "carrier": None, "arrives": None},
}

ARTICLES: list[Article] = [
    {
        "title": "Late parcels",
        "text": "A parcel is late after 5 working days; we then send a new one free of charge.",
    },
    {
        "title": "Returns",
        "text": "Goods may be returned within 30 days; the money is back within 5 working days.",
    },
    {"title": "Care of oak boards", "text": "Oil an oak board twice a year; never put it in the dishwasher."},
]


@tool
def lookup_order(order: str) -> Order:
    """Return what the shop knows of an order; raise UnknownOrder where it knows nothing."""
    if order not in ORDERS:
        raise UnknownOrder(f"there is no order {order!r}")
    return ORDERS[order]


@tool
async def search_knowledge(phrase: str, category: str) -> list[Article]:
    """Return the articles that share a word with the phrase or the category, best first."""
    words = set(f"{phrase} {category}".lower().split())

    def score(article: Article) -> int:
        return len(
            words & set(f"{article['title']} {article['text']}".lower().replace(";", " ").replace(".", " ").split())
        )

    return [article for article in sorted(ARTICLES, key=score, reverse=True) if score(article)][:2]


@tool
def open_ticket(message: str, category: str, urgency: Literal["low", "normal", "high"], reason: str) -> dict[str, str]:
    """Open a ticket for a person to go on with; the same message gets the same number."""
    number = zlib.crc32(message.encode()) % 100_000
    return {
        "action": "escalated",
        "ticket": f"T-{number:05}",
        "queue": f"{category}/{urgency}",
        "reason": reason,
    }
