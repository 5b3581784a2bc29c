"""Media, schemas and small builders for the fixtures of everything.py."""

import base64
import struct
import zlib

import mcp.types as t

# Media: the smallest valid files, made here so that no blob has to be trusted.


def png_1x1():
    """A red 1x1 PNG."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\x00\xff\x00\x00")
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def wav_empty():
    """A WAV file of one silent sample."""
    form = struct.pack("<HHIIHH", 1, 1, 8000, 8000, 1, 8)
    body = (
        b"WAVEfmt "
        + struct.pack("<I", len(form))
        + form
        + b"data"
        + struct.pack("<I", 1)
        + b"\x80\x00"
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


PNG = base64.b64encode(png_1x1()).decode()
WAV = base64.b64encode(wav_empty()).decode()


# Schemas and small builders.


def object_schema(required=(), **properties):
    return {"type": "object", "properties": properties, "required": list(required)}


STRING = {"type": "string"}
EMPTY = {"type": "object", "properties": {}}
JSON_SCHEMA_2020_12 = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": STRING, "city": STRING},
        }
    },
    "properties": {
        "name": STRING,
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": STRING,
        "email": STRING,
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
DEFAULTS_FORM = object_schema(
    name={"type": "string", "default": "John Doe"},
    age={"type": "integer", "default": 30},
    score={"type": "number", "default": 95.5},
    status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    verified={"type": "boolean", "default": True},
)
CHOICES = [{"const": f"value{i}", "title": f"Choice {i}"} for i in (1, 2, 3)]
OPTIONS = ["option1", "option2", "option3"]
ENUMS_FORM = object_schema(
    untitledSingle={"type": "string", "enum": OPTIONS},
    titledSingle={"type": "string", "oneOf": CHOICES},
    legacyEnum={
        "type": "string",
        "enum": ["opt1", "opt2", "opt3"],
        "enumNames": ["One", "Two", "Three"],
    },
    untitledMulti={"type": "array", "items": {"type": "string", "enum": OPTIONS}},
    titledMulti={"type": "array", "items": {"anyOf": CHOICES}},
)


def text(value, error=False):
    return t.CallToolResult(content=[t.TextContent(type="text", text=value)], is_error=error)


def embedded(uri, mime, body):
    return t.EmbeddedResource(
        type="resource", resource=t.TextResourceContents(uri=uri, mime_type=mime, text=body)
    )


def image():
    return t.ImageContent(type="image", data=PNG, mime_type="image/png")


def elicit_request(message, **properties):
    schema = object_schema(required=list(properties), **properties)
    return t.ElicitRequest(
        params=t.ElicitRequestFormParams(message=message, requested_schema=schema)
    )


def sample_request(prompt, max_tokens=100):
    message = t.SamplingMessage(role="user", content=t.TextContent(type="text", text=prompt))
    return t.CreateMessageRequest(
        params=t.CreateMessageRequestParams(messages=[message], max_tokens=max_tokens)
    )


def ask(state=None, **requests):
    return t.InputRequiredResult(input_requests=requests, request_state=state)


def answered(params, *keys):
    """The input responses when all `keys` are there, else None (ask again)."""
    given = params.input_responses or {}
    return given if all(key in given for key in keys) else None


def capabilities(ctx):
    return ctx.session.client_capabilities or t.ClientCapabilities()
