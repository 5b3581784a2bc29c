"""A decision point of the OpenID AuthZEN Authorization API 1.0 on an independent Cedar engine.

usage: PDP_TOKEN=... python pdp.py PORT (0: any), prints `ready PORT`

It knows nothing of the gateway but the standard, and the mapping in the gateway's manual.
"""

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cedarpy

POLICIES = """
permit (principal == identity::"dana@example.com", action == Action::"connect",
  resource is gateway);
permit (principal == identity::"dana@example.com", action, resource is mcp_server);
permit (principal, action == Action::"tools/call", resource is tool)
when { context.agent == "interop-agent" };
forbid (principal, action, resource is tool)
unless { ["everything/test_simple_text", "everything/test_error_handling"].contains(context.name) };
permit (principal, action == Action::"prompts/get",
  resource == prompt::"everything/test_simple_prompt");
permit (principal, action == Action::"resources/read",
  resource == resource::"everything/test://static-text");
permit (principal, action == Action::"resources/read", resource is resource_template);
"""


def uid(kind, name):
    return f"{kind}::{json.dumps(name)}"


def decide(asked):
    subject, action, resource = asked["subject"], asked["action"], asked["resource"]
    server = resource.get("properties", {}).get("server")
    name = resource["id"] if server is None else f"{server}/{resource['id']}"
    request = {
        "principal": uid(subject["type"], subject["id"]),
        "action": uid("Action", action["name"]),
        "resource": uid(resource["type"], name),
        "context": {**asked.get("context", {}), "name": name},
    }
    result = cedarpy.is_authorized(request, POLICIES, [])
    if result.diagnostics.errors:
        print(request, result.diagnostics.errors, file=sys.stderr)
    return {"decision": result.allowed}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if "X-Request-ID" in self.headers:
            self.send_header("X-Request-ID", self.headers["X-Request-ID"])
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path != "/.well-known/authzen-configuration":
            return self.answer(404, {})
        own = f"http://{self.headers['Host']}"
        return self.answer(200, {
            "policy_decision_point": own,
            "access_evaluation_endpoint": own + "/decide/one",
            "access_evaluations_endpoint": own + "/decide/many",
        })

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != "Bearer " + os.environ["PDP_TOKEN"]:
            return self.answer(401, {})
        if self.path == "/decide/one":
            return self.answer(200, decide(asked))
        if self.path != "/decide/many":
            return self.answer(404, {})
        every = asked.pop("evaluations")
        return self.answer(200, {"evaluations": [decide({**asked, **one}) for one in every]})


def end_with_the_test():
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_the_test, daemon=True).start()
server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("ready", server.server_address[1], flush=True)
server.serve_forever()
