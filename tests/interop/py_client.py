"""The Python SDK's client, driven by a plan; prints one JSON object of what it saw.

usage: [TOKEN=...] [ISSUER=...] python py_client.py URL MODE PLAN
(MODE: legacy, auto or 2026-07-28; PLAN: JSON, see tests/interop.rs)

With ISSUER it has no token: it finds the authorization server through the gateway's challenge and
gets one there as the client `delegate` of oidc.mjs.
"""

import asyncio
import contextlib
import json
import os
import sys
import warnings

import httpx2
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPDeprecationWarning

from mcp import Client, types

warnings.simplefilter("ignore", MCPDeprecationWarning)
TIMEOUT_SECONDS = 60
ANNOUNCE_TRIES = 30
ANNOUNCE_WAIT_SECONDS = 1


async def outcome(run):
    """What a call came to: its value, or the class, code and message of the error."""
    try:
        return {"value": await run()}
    except Exception as error:  # noqa: BLE001
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        kind, code = type(error).__name__, getattr(error, "code", None)
        return {"error": {"kind": kind, "code": code, "message": str(error)}}


def texts(result):
    content = [getattr(block, "text", block.type) for block in result.content]
    return {"isError": bool(result.is_error), "content": content}


async def changed(client, trigger, announced):
    """Has a change of the tools announced until the announcement arrives.

    It comes on the listen stream, or in the legacy era on the standalone stream, which may not be
    open yet at the first try.
    """

    async def forward(events):
        async for _ in events:
            announced.set()

    async with contextlib.AsyncExitStack() as stack:
        listener = None
        if client.protocol_version >= "2026":
            events = await stack.enter_async_context(client.listen(tools_list_changed=True))
            listener = asyncio.create_task(forward(events))
        for _ in range(ANNOUNCE_TRIES):
            await client.call_tool(trigger["name"], {})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(announced.wait(), ANNOUNCE_WAIT_SECONDS)
                break
        if listener is not None:
            listener.cancel()
    return announced.is_set()


async def drive(client, plan, elicited, announced):
    modern = client.protocol_version >= "2026"
    seen = {"era": "modern" if modern else "legacy", "version": client.protocol_version}

    async def call(what, **extra):
        return texts(await client.call_tool(what["name"], what.get("arguments", {}), **extra))

    async def tools():
        return [tool.name for tool in (await client.list_tools()).tools]

    async def prompts():
        return [prompt.name for prompt in (await client.list_prompts()).prompts]

    async def resources():
        return [str(resource.uri) for resource in (await client.list_resources()).resources]

    async def templates():
        listed = (await client.list_resource_templates()).resource_templates
        return [template.uri_template for template in listed]

    async def read(uri):
        contents = (await client.read_resource(uri)).contents
        return [getattr(c, "text", None) or getattr(c, "blob", None) for c in contents]

    async def prompt(what):
        got = await client.get_prompt(what["name"], what.get("arguments"))
        return [getattr(m.content, "text", m.content.type) for m in got.messages]

    seen["tools"] = await outcome(tools)
    seen["prompts"] = await outcome(prompts)
    seen["resources"] = await outcome(resources)
    seen["templates"] = await outcome(templates)
    for key in ("call", "failing", "unknown"):
        if key in plan:
            seen[key] = await outcome(lambda key=key: call(plan[key]))
    if "calls" in plan:
        seen["calls"] = [await outcome(lambda w=what: call(w)) for what in plan["calls"]]
    if "progress" in plan:
        steps = []

        async def on_progress(progress, total, message):
            steps.append(int(progress))

        seen["progress"] = await outcome(
            lambda: call(plan["progress"], progress_callback=on_progress)
        )
        seen["steps"] = steps
    if "elicit" in plan:
        ask = {
            "name": plan["elicit"][seen["era"]],
            "arguments": plan["elicit"].get("arguments", {}),
        }
        seen["elicit"] = await outcome(lambda: call(ask))
        seen["elicited"] = elicited
    for key in ("read", "readUnknown"):
        if key in plan:
            seen[key] = await outcome(lambda key=key: read(plan[key]))
    if "prompt" in plan:
        seen["prompt"] = await outcome(lambda: prompt(plan["prompt"]))
    if "change" in plan:
        seen["changed"] = await outcome(lambda: changed(client, plan["change"], announced))
    if "again" in plan:
        seen["again"] = await outcome(tools)
    return seen


class Storage:
    """Keeps what the SDK's OAuth flow wants kept, for this run."""

    tokens = None
    client_info = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client_info

    async def set_client_info(self, client_info):
        self.client_info = client_info


def oauth(url):
    issuer = os.environ.get("ISSUER")
    if issuer is None:
        return None
    return ClientCredentialsOAuthProvider(
        url, Storage(), "delegate", "interop", scope="mcp:tools", issuer=issuer
    )


async def main():
    url, mode, plan = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    token = os.environ.get("TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    elicited = []
    announced = asyncio.Event()

    async def on_elicit(context, params):
        elicited.append(params.message)
        return types.ElicitResult(
            action="accept", content=plan.get("elicit", {}).get("content", {})
        )

    async def on_message(message):
        if isinstance(message, types.ToolListChangedNotification):
            announced.set()

    async def connect_and_drive():
        async with httpx2.AsyncClient(
            headers=headers, timeout=TIMEOUT_SECONDS, auth=oauth(url)
        ) as http:
            transport = streamable_http_client(url, http_client=http)
            callbacks = {"elicitation_callback": on_elicit, "message_handler": on_message}
            async with Client(transport, mode=mode, **callbacks) as client:
                return await drive(client, plan, elicited, announced)

    result = await outcome(connect_and_drive)
    print(json.dumps(result.get("value") or {"connect": result}))


asyncio.run(main())
