"""An MCP server that is odd in the way that its first argument names; without the `mcp` package, which would not be."""

import json
import os
import sys
from typing import Any

WAY = sys.argv[1]
SCHEMAS: dict[str, Any] = {
    "no schema": {"type": "nonsense"},
    "unknown type": {"type": "object", "properties": {"x": {"type": "nonsense"}}},
    "leads nowhere": {"type": "object", "properties": {"x": {"$ref": "#/none"}}},
    "leads to itself": {"type": "object", "$ref": "#"},
    "slow pattern": {"type": "object", "properties": {"x": {"pattern": "^(a+)+$"}}},
}
tools = [{"name": "a", "inputSchema": SCHEMAS.get(WAY, {"type": "object"})}]


def answer(asked: dict[str, Any]) -> Any:
    match asked["method"]:
        case "initialize":
            version = asked["params"]["protocolVersion"]
            return {
                "protocolVersion": version,
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "odd", "version": "1"},
            }
        case "tools/list":
            listed = [*tools]
            tools.append({"name": "b", "inputSchema": {"type": "object"}})
            return {"tools": listed, **({"nextCursor": "again"} if WAY == "endless list" else {})}
    return {"foo": 1} if WAY == "no result" else {"content": [{"type": "text", "text": "hi"}]}


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if WAY == "babbles":
    say(f"token: {os.environ['TOKEN']}")
for line in sys.stdin:
    if "id" in (asked := json.loads(line)):
        say(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": answer(asked)}))
