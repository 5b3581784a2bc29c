"""A small server on fastmcp, of both eras: two tools, a prompt, a resource and a template.

usage: python fast.py PORT      (PORT 0 picks one; prints `ready PORT`)
"""

import os
import socket
import sys
import threading

import uvicorn
from fastmcp import FastMCP

server = FastMCP("portcullis-fast")


@server.tool
def echo(text: str) -> str:
    """Says what it was told."""
    return f"fast: {text}"


@server.tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.prompt
def greet(name: str) -> str:
    """Greets."""
    return f"Greet {name}"


@server.resource("fast://note")
def note() -> str:
    """A note."""
    return "noted"


@server.resource("fast://note/{number}")
def numbered(number: str) -> str:
    """One of many notes."""
    return f"noted {number}"


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
    app = server.http_app(path="/mcp")
    Announcing(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
