"""A small MCP server: the stock of a shop. `examples/mcp_stock.yaml` calls its tools."""

from mcp.server import MCPServer

STOCK = {"lamp": 3, "desk": 0}
server = MCPServer("stock")


@server.tool()
def count(item: str) -> int:
    """Say how many of an item are there."""
    return STOCK.get(item, 0)


@server.tool()
def reserve(item: str, many: int = 1) -> str:
    """Put items aside for an order, and return the number of the reservation."""
    return f"{item}-{many}"


if __name__ == "__main__":
    server.run()
