"""Our own test server on the `mcp` SDK: every fixture the conformance suite asks for, in both eras.

usage: python everything.py PORT        (0 picks a free port)

Prints `ready PORT` on stdout once it accepts. Besides /mcp it serves `GET /observed`, a JSON
record of what reached it (header names, whether an Authorization arrived, calls that were
cancelled), so that a test can assert what a gateway let through. Loopback only.
"""

import json
import os
import socket
import sys
import threading
import warnings

import mcp.types as t
import uvicorn
from everything_parts import PNG, STRING, answered, ask, elicit_request, embedded, image
from everything_tools import TOOLS, bus, held
from mcp.server.caching import CacheHint
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.streamable_http import EventMessage, EventStore
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from starlette.responses import JSONResponse
from starlette.routing import Route

# The legacy era's logging, sampling and roots are exactly what half of the fixtures exercise.
warnings.simplefilter("ignore", MCPDeprecationWarning)

NAME = "portcullis-everything"
REPLAY_EVENTS_MAX = 4096
OBSERVED_MAX = 4096

observed = {"requests": 0, "authorization": [], "header_names": set()}


async def list_tools(ctx, params):
    return t.ListToolsResult(tools=[entry for entry, _ in TOOLS.values()])


async def call_tool(ctx, params):
    if params.name not in TOOLS:
        raise MCPError(t.INVALID_PARAMS, f"Unknown tool: {params.name}")
    return await TOOLS[params.name][1](ctx, params)


# Resources.

TEXT_URI = "test://static-text"
BINARY_URI = "test://static-binary"
WATCHED_URI = "test://watched-resource"
TEMPLATE = ("test://template/", "/data")


async def list_resources(ctx, params):
    rows = (
        (TEXT_URI, "static-text", "A fixed text", "text/plain"),
        (BINARY_URI, "static-binary", "A fixed picture", "image/png"),
        (WATCHED_URI, "watched-resource", "A text that may be subscribed to", "text/plain"),
    )
    return t.ListResourcesResult(
        resources=[t.Resource(uri=u, name=n, description=d, mime_type=m) for u, n, d, m in rows]
    )


async def list_templates(ctx, params):
    template = t.ResourceTemplate(
        uri_template="{id}".join(TEMPLATE),
        name="template",
        description="Substitutes its id",
        mime_type="application/json",
    )
    return t.ListResourceTemplatesResult(resource_templates=[template])


async def read_resource(ctx, params):
    uri = str(params.uri)
    if uri == BINARY_URI:
        contents = t.BlobResourceContents(uri=uri, mime_type="image/png", blob=PNG)
        return t.ReadResourceResult(contents=[contents])
    head, tail = TEMPLATE
    if uri == TEXT_URI:
        mime, body = "text/plain", "This is the content of the static text resource."
    elif uri == WATCHED_URI:
        mime, body = "text/plain", "Watched."
    elif uri.startswith(head) and uri.endswith(tail) and len(uri) > len(head) + len(tail):
        wanted = uri[len(head) : -len(tail)]
        mime = "application/json"
        body = json.dumps({"id": wanted, "templateTest": True, "data": f"Data for ID: {wanted}"})
    else:
        raise MCPError(t.INVALID_PARAMS, "Resource not found", {"uri": uri})
    return t.ReadResourceResult(
        contents=[t.TextResourceContents(uri=uri, mime_type=mime, text=body)]
    )


async def accept(ctx, params):
    return t.EmptyResult()


# Prompts.


def argument(name, description):
    return t.PromptArgument(name=name, description=description, required=True)


PROMPTS = [
    t.Prompt(name="test_simple_prompt", description="Has no arguments"),
    t.Prompt(
        name="test_prompt_with_arguments",
        description="Has two arguments",
        arguments=[
            argument("arg1", "First test argument"),
            argument("arg2", "Second test argument"),
        ],
    ),
    t.Prompt(
        name="test_prompt_with_embedded_resource",
        description="Embeds a resource",
        arguments=[argument("resourceUri", "URI of the resource to embed")],
    ),
    t.Prompt(name="test_prompt_with_image", description="Holds a picture"),
    t.Prompt(name="test_input_required_result_prompt", description="Asks for context first"),
]


async def list_prompts(ctx, params):
    return t.ListPromptsResult(prompts=PROMPTS)


async def get_prompt(ctx, params):
    given = params.arguments or {}

    def say(value):
        return t.TextContent(type="text", text=value)

    if params.name == "test_simple_prompt":
        contents = [say("This is a simple prompt for testing.")]
    elif params.name == "test_prompt_with_arguments":
        contents = [
            say(f"Prompt with arguments: arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'")
        ]
    elif params.name == "test_prompt_with_embedded_resource":
        body = "Embedded resource content for testing."
        contents = [
            embedded(given.get("resourceUri", TEXT_URI), "text/plain", body),
            say("Please process the embedded resource above."),
        ]
    elif params.name == "test_prompt_with_image":
        contents = [image(), say("Please analyze the image above.")]
    elif params.name == "test_input_required_result_prompt":
        if answered(params, "user_context") is None:
            return ask(
                user_context=elicit_request("What context should the prompt use?", context=STRING)
            )
        contents = [say("Prompt with the context that was given.")]
    else:
        raise MCPError(t.INVALID_PARAMS, f"Unknown prompt: {params.name}")
    return t.GetPromptResult(messages=[t.PromptMessage(role="user", content=c) for c in contents])


async def complete(ctx, params):
    typed = params.argument.value
    values = [word for word in ("paris", "park", "party") if word.startswith(typed)]
    return t.CompleteResult(
        completion=t.Completion(values=values, total=len(values), has_more=False)
    )


# Wire.


class Events(EventStore):
    """Bounded store for resumable legacy streams: the oldest events go first."""

    def __init__(self):
        self.events = {}
        self.last = 0

    async def store_event(self, stream_id, message):
        self.last += 1
        self.events[str(self.last)] = (stream_id, message)
        while len(self.events) > REPLAY_EVENTS_MAX:
            self.events.pop(next(iter(self.events)))
        return str(self.last)

    async def replay_events_after(self, last_event_id, send_callback):
        known = self.events.get(last_event_id)
        if known is None:
            return None
        for event_id, (stream_id, message) in list(self.events.items()):
            if stream_id == known[0] and int(event_id) > int(last_event_id) and message is not None:
                await send_callback(EventMessage(message, event_id))
        return known[0]


def observe(app):
    """Records what arrived at the MCP path, before anything judges it."""

    async def wrapped(scope, receive, send):
        if scope["type"] == "http" and scope["path"].startswith("/mcp"):
            observed["requests"] += 1
            for name, value in scope["headers"]:
                observed["header_names"].add(name.decode("latin-1"))
                if name == b"authorization" and len(observed["authorization"]) < OBSERVED_MAX:
                    observed["authorization"].append(value.decode("latin-1"))
        await app(scope, receive, send)

    return wrapped


async def show_observed(request):
    seen = observed | held
    return JSONResponse({k: sorted(v) if isinstance(v, set) else v for k, v in seen.items()})


def build():
    server = Server(
        NAME,
        version="1",
        cache_hints={"tools/list": CacheHint(ttl_ms=60000, scope="public")},
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_subscribe_resource=accept,
        on_unsubscribe_resource=accept,
        on_subscriptions_listen=ListenHandler(bus),
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_completion=complete,
        on_set_logging_level=accept,
    )
    server.middleware.append(
        RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=NAME)
    )
    app = server.streamable_http_app(
        event_store=Events(),
        retry_interval=100,
        custom_starlette_routes=[Route("/observed", show_observed)],
    )
    return observe(app)


class Announcing(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print("ready", sockets[0].getsockname()[1], flush=True)


def end_with_the_test():
    """Ends this process when the test that started it is gone, however it went."""
    sys.stdin.read()
    os._exit(0)


def main():
    threading.Thread(target=end_with_the_test, daemon=True).start()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(sys.argv[1])))
    Announcing(uvicorn.Config(build(), log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
