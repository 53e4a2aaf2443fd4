"""The tools of order.yaml and approval.yaml."""

from perdure import tool


@tool
def pack(order: str) -> str:
    """Pack the goods and return the number of the parcel."""
    return f"P-{order}"


@tool
def write_invoice(order: str, amount: float) -> str:
    """Write the invoice and return its number."""
    return f"I-{order}-{amount:g}"


@tool
async def notify(order: str, text: str) -> None:
    """Tell the customer."""


@tool
async def refund(order: str, amount: float) -> str:
    """Pay the money back and return the receipt."""
    return f"R-{order}-{amount:g}"
