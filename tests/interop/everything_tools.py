"""The tools of everything.py: each takes (ctx, params), returns a result, has the suite's name."""

import asyncio
import json

import mcp.types as t
from everything_parts import (
    DEFAULTS_FORM,
    EMPTY,
    ENUMS_FORM,
    JSON_SCHEMA_2020_12,
    STRING,
    WAV,
    answered,
    ask,
    capabilities,
    elicit_request,
    embedded,
    image,
    object_schema,
    sample_request,
    text,
)
from mcp.server.subscriptions import InMemorySubscriptionBus, PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError

MODERN = "2026-07-28"
STEP_SECONDS = 0.05
HOLD_SECONDS_MAX = 30

bus = InMemorySubscriptionBus()
released = asyncio.Event()
held = {"held": 0, "cancelled": 0}

TOOLS = {}


def tool(name, description, schema=None):
    def register(function):
        TOOLS[name] = (
            t.Tool(name=name, description=description, input_schema=schema or EMPTY),
            function,
        )
        return function

    return register


@tool("test_simple_text", "Answers one text block")
async def simple_text(ctx, params):
    return text("This is a simple text response for testing.")


@tool("test_image_content", "Answers one image")
async def image_content(ctx, params):
    return t.CallToolResult(content=[image()])


@tool("test_audio_content", "Answers one audio clip")
async def audio_content(ctx, params):
    return t.CallToolResult(content=[t.AudioContent(type="audio", data=WAV, mime_type="audio/wav")])


@tool("test_embedded_resource", "Answers an embedded resource")
async def embedded_resource(ctx, params):
    body = "This is an embedded resource content."
    return t.CallToolResult(content=[embedded("test://embedded-resource", "text/plain", body)])


@tool("test_multiple_content_types", "Answers text, an image and a resource")
async def multiple_content_types(ctx, params):
    body = '{"test":"data","value":123}'
    return t.CallToolResult(
        content=[
            t.TextContent(type="text", text="Multiple content types test:"),
            image(),
            embedded("test://mixed-content-resource", "application/json", body),
        ]
    )


@tool("test_error_handling", "Always fails")
async def error_handling(ctx, params):
    return text("This tool intentionally returns an error for testing", error=True)


@tool("test_tool_with_logging", "Logs three lines while it runs")
async def tool_with_logging(ctx, params):
    for pause, line in (
        (0, "Tool execution started"),
        (STEP_SECONDS, "Tool processing data"),
        (STEP_SECONDS, "Tool execution completed"),
    ):
        await asyncio.sleep(pause)
        await ctx.session.send_log_message("info", line, related_request_id=ctx.request_id)
    return text("Logged three lines")


@tool("test_logging_tool", "Logs one line, which a modern client sees only when it asked for logs")
async def logging_tool(ctx, params):
    await ctx.session.send_log_message("info", "one line", related_request_id=ctx.request_id)
    return text("Logged one line")


@tool("test_tool_with_progress", "Reports 0, 50 and 100 of 100")
async def tool_with_progress(ctx, params):
    for pause, done in ((0, 0), (STEP_SECONDS, 50), (STEP_SECONDS, 100)):
        await asyncio.sleep(pause)
        await ctx.session.report_progress(done, 100)
    return text("Progress reported")


@tool("test_sampling", "Asks the client's model", object_schema(["prompt"], prompt=STRING))
async def sampling(ctx, params):
    if capabilities(ctx).sampling is None:
        return text("The client does not offer sampling", error=True)
    prompt = (params.arguments or {}).get("prompt", "")
    message = t.SamplingMessage(role="user", content=t.TextContent(type="text", text=prompt))
    answer = await ctx.session.create_message(
        [message], max_tokens=100, related_request_id=ctx.request_id
    )
    said = answer.content.text if isinstance(answer.content, t.TextContent) else "(not text)"
    return text(f"LLM response: {said}")


async def elicit(ctx, message, schema, label):
    if capabilities(ctx).elicitation is None:
        return text("The client does not offer elicitation", error=True)
    answer = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
    return text(f"{label}: action={answer.action}, content={json.dumps(answer.content or {})}")


@tool("test_elicitation", "Asks the user", object_schema(["message"], message=STRING))
async def elicitation(ctx, params):
    form = object_schema(
        ["username", "email"],
        username={"type": "string", "description": "User's response"},
        email={"type": "string", "description": "User's email address"},
    )
    return await elicit(ctx, (params.arguments or {}).get("message", ""), form, "User response")


@tool("test_elicitation_sep1034_defaults", "Asks the user with a default for every primitive type")
async def elicitation_defaults(ctx, params):
    return await elicit(ctx, "Please check the defaults", DEFAULTS_FORM, "Elicitation completed")


@tool("test_elicitation_sep1330_enums", "Asks the user with every kind of enumeration")
async def elicitation_enums(ctx, params):
    return await elicit(ctx, "Please choose", ENUMS_FORM, "Elicitation completed")


@tool("test_reconnection", "Closes its stream before it answers: the client must resume")
async def reconnection(ctx, params):
    if ctx.close_sse_stream is not None:
        await ctx.close_sse_stream()
    await asyncio.sleep(2 * STEP_SECONDS)
    return text("Answered after the stream was closed")


@tool(
    "json_schema_2020_12_tool", "Has an input schema full of 2020-12 keywords", JSON_SCHEMA_2020_12
)
async def json_schema_tool(ctx, params):
    return text(json.dumps(params.arguments or {}))


@tool(
    "test_mirrored_parameter",
    "Has a parameter that the client mirrors into a header",
    object_schema(["region"], region={"type": "string", "x-mcp-header": "Region"}),
)
async def mirrored_parameter(ctx, params):
    return text(f"region={(params.arguments or {}).get('region')}")


@tool("test_missing_capability", "Needs the client's sampling capability")
async def missing_capability(ctx, params):
    if capabilities(ctx).sampling is None:
        raise MCPError(
            t.MISSING_REQUIRED_CLIENT_CAPABILITY,
            "This tool needs the sampling capability",
            {"requiredCapabilities": {"sampling": {}}},
        )
    return text("The client offers sampling")


@tool("test_streaming_elicitation", "Streams, then asks for input inside its result")
async def streaming_elicitation(ctx, params):
    if capabilities(ctx).elicitation is None:
        raise MCPError(
            t.MISSING_REQUIRED_CLIENT_CAPABILITY,
            "This tool needs the elicitation capability",
            {"requiredCapabilities": {"elicitation": {}}},
        )
    if answered(params, "confirm"):
        return text("Confirmed")
    await ctx.session.report_progress(1, 2)
    return ask(confirm=elicit_request("Go on?", ok={"type": "boolean"}))


@tool("test_trigger_tool_change", "Announces that the tools changed, as they do after a redeploy")
async def trigger_tool_change(ctx, params):
    if ctx.protocol_version == MODERN:
        await bus.publish(ToolsListChanged())
    else:
        await ctx.session.send_tool_list_changed()
    return text("Announced")


@tool("test_trigger_prompt_change", "Announces that the prompts changed")
async def trigger_prompt_change(ctx, params):
    if ctx.protocol_version == MODERN:
        await bus.publish(PromptsListChanged())
    else:
        await ctx.session.send_prompt_list_changed()
    return text("Announced")


@tool("test_hold", "Lasts until test_release is called or its caller goes away (at most 30 s)")
async def hold(ctx, params):
    held["held"] += 1
    try:
        await ctx.session.report_progress(0, 1)
        await asyncio.wait_for(released.wait(), HOLD_SECONDS_MAX)
    except asyncio.CancelledError:
        held["cancelled"] += 1
        raise
    return text("Released")


@tool("test_release", "Lets every held call end")
async def release(ctx, params):
    global released
    released.set()
    released = asyncio.Event()
    return text("Let go")


# The suite's task scenarios are not required; these two plain tools are what they call beside
# tasks.


@tool("greet", "Greets", object_schema(["name"], name=STRING))
async def greet(ctx, params):
    return text(f"Hello, {(params.arguments or {}).get('name')}!")


@tool(
    "slow_compute",
    "Computes without making a task of it",
    object_schema(seconds={"type": "number"}),
)
async def slow_compute(ctx, params):
    seconds = float((params.arguments or {}).get("seconds", 0))
    await asyncio.sleep(min(max(seconds, 0), 10 * STEP_SECONDS))
    return text("Computed")


# Tools that need several rounds (2026-07-28). The state is sealed by the SDK's boundary below.

NAME_FORM = {"name": STRING}
OK_FORM = {"ok": {"type": "boolean"}}


@tool("test_input_required_result_elicitation", "Asks for a name inside its result")
async def rounds_elicitation(ctx, params):
    given = answered(params, "user_name")
    if given is None or not isinstance(given["user_name"], t.ElicitResult):
        return ask(user_name=elicit_request("What is your name?", **NAME_FORM))
    return text(f"Hello, {(given['user_name'].content or {}).get('name', 'nobody')}!")


@tool("test_input_required_result_sampling", "Asks the client's model inside its result")
async def rounds_sampling(ctx, params):
    given = answered(params, "capital_question")
    if given is None:
        return ask(capital_question=sample_request("What is the capital of France?"))
    return text(f"The model said: {given['capital_question'].model_dump_json()}")


@tool("test_input_required_result_list_roots", "Asks for the client's roots inside its result")
async def rounds_list_roots(ctx, params):
    given = answered(params, "client_roots")
    if given is None:
        return ask(client_roots=t.ListRootsRequest(params=t.RequestParams()))
    return text(f"Roots: {given['client_roots'].model_dump_json()}")


@tool("test_input_required_result_request_state", "Round-trips its state")
async def rounds_request_state(ctx, params):
    if answered(params, "confirm") is None or params.request_state != "waiting-for-confirm":
        return ask("waiting-for-confirm", confirm=elicit_request("Please confirm", **OK_FORM))
    return text("state-ok")


@tool("test_input_required_result_tampered_state", "Round-trips state that must not be changed")
async def rounds_tampered_state(ctx, params):
    if answered(params, "confirm") is None or params.request_state != "sealed":
        return ask("sealed", confirm=elicit_request("Please confirm", **OK_FORM))
    return text("state-ok")


@tool("test_input_required_result_multiple_inputs", "Asks for three inputs at once")
async def rounds_multiple_inputs(ctx, params):
    keys = ("user_name", "greeting", "client_roots")
    if answered(params, *keys) is None or params.request_state != "three":
        return ask(
            "three",
            user_name=elicit_request("What is your name?", **NAME_FORM),
            greeting=sample_request("Generate a greeting", 50),
            client_roots=t.ListRootsRequest(params=t.RequestParams()),
        )
    return text("All three inputs arrived")


@tool("test_input_required_result_multi_round", "Needs two rounds")
async def rounds_multi_round(ctx, params):
    if params.request_state == "after-name" and answered(params, "step2"):
        return text("Both steps done")
    if params.request_state == "start" and answered(params, "step1"):
        return ask(
            "after-name",
            step2=elicit_request("Step 2: What is your favorite color?", color=STRING),
        )
    return ask("start", step1=elicit_request("Step 1: What is your name?", **NAME_FORM))


@tool("test_input_required_result_capabilities", "Asks only for what the client offers")
async def rounds_capabilities(ctx, params):
    offered = capabilities(ctx)
    requests = {}
    if offered.elicitation is not None:
        requests["user_name"] = elicit_request("What is your name?", **NAME_FORM)
    if offered.sampling is not None:
        requests["greeting"] = sample_request("Generate a greeting", 50)
    if offered.roots is not None:
        requests["client_roots"] = t.ListRootsRequest(params=t.RequestParams())
    if not requests or answered(params, *requests):
        return text("Nothing more to ask")
    return ask(**requests)
