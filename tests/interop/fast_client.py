"""fastmcp's client: lists everything and makes the calls of a plan; prints one JSON object.

usage: [TOKEN=...] python fast_client.py URL MODE PLAN
(MODE: legacy or auto; PLAN: JSON, its `calls` are made in order, see tests/interop/many.rs)
"""

import asyncio
import json
import os
import sys

from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport


async def outcome(run):
    """What a call came to: its value, or the class, code and message of the error."""
    try:
        return {"value": await run()}
    except Exception as error:  # noqa: BLE001
        kind, code = type(error).__name__, getattr(error, "code", None)
        return {"error": {"kind": kind, "code": code, "message": str(error)}}


async def drive(url, mode, plan):
    token = os.environ.get("TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with Client(StreamableHttpTransport(url, headers=headers), mode=mode) as client:

        async def tools():
            return [tool.name for tool in await client.list_tools()]

        async def prompts():
            return [prompt.name for prompt in await client.list_prompts()]

        async def resources():
            return [str(resource.uri) for resource in await client.list_resources()]

        async def call(what):
            result = await client.call_tool(
                what["name"], what.get("arguments", {}), raise_on_error=False
            )
            content = [getattr(block, "text", block.type) for block in result.content]
            return {"isError": bool(result.is_error), "content": content}

        seen = {"tools": await outcome(tools), "prompts": await outcome(prompts)}
        seen["resources"] = await outcome(resources)
        seen["calls"] = [await outcome(lambda w=what: call(w)) for what in plan["calls"]]
        return seen


async def main():
    url, mode, plan = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    result = await outcome(lambda: drive(url, mode, plan))
    print(json.dumps(result.get("value") or {"connect": result}))


asyncio.run(main())
