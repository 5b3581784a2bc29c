"""A decision point of the OpenID AuthZEN Authorization API 1.0 on an independent Cedar engine.

usage: PDP_TOKEN=... [PDP_TLS=FOLDER] python pdp.py PORT (0: any), prints `ready PORT`

It knows nothing of the gateway but the standard, and the mapping in the gateway's manual. Of the
other policies, those on records are the fixture of openid/authzen@e287920,
authorization-api-1_0-scenario.md, and those on routes are ours for the working group's interop
scenario of API gateways; `interop/pdp.rs` plays both.
"""

import json
import os
import ssl
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

permit (principal is user, action == Action::"read", resource is record)
when { principal == user::"alice" || principal == user::"bob" };
permit (principal == user::"alice", action == Action::"write", resource is record)
unless { context.resource has status && context.resource.status == "archived" };
permit (principal is user, action == Action::"write", resource is record)
when { context.subject has role && context.subject.role == "admin" &&
  context.resource has status && context.resource.status == "archived" };
permit (principal == user::"alice", action == Action::"delete", resource is record)
when { context.action has soft && context.action.soft == true };

permit (principal is identity, action == Action::"GET", resource == route::"/users/{userId}");
permit (principal is identity, action == Action::"GET", resource == route::"/todos");
permit (principal is identity, action, resource is route)
when { [
    identity::"CiRmZDA2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs",
    identity::"CiRmZDE2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs",
    identity::"CiRmZDI2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs"
  ].contains(principal) && (
    action == Action::"POST" && resource == route::"/todos" ||
    [Action::"PUT", Action::"DELETE"].contains(action) && resource == route::"/todos/{todoId}"
  ) };
"""


def uid(kind, name):
    return f"{kind}::{json.dumps(name)}"


class Bad(Exception):
    """Not a request of the standard; its words go to whoever asked."""


NAMES = {"subject": ("type", "id"), "action": ("name",), "resource": ("type", "id")}
SEMANTICS = {"execute_all": None, "deny_on_first_deny": False, "permit_on_first_permit": True}


def judged(asked, whole):
    """Refuses what is missing (of a whole question) or of another type."""
    if not isinstance(asked, dict):
        raise Bad("not an object")
    for key, names in NAMES.items():
        if key not in asked and not whole:
            continue
        entity = asked.get(key)
        if not isinstance(entity, dict):
            raise Bad(f"{key} is no object")
        if not all(isinstance(entity.get(name), str) for name in names):
            raise Bad(f"{key} lacks one of {names}")
        if not isinstance(entity.get("properties", {}), dict):
            raise Bad(f"the properties of {key} are no object")
    if not isinstance(asked.get("context", {}), dict):
        raise Bad("context is no object")
    return asked


def decide(asked):
    judged(asked, True)
    subject, action, resource = asked["subject"], asked["action"], asked["resource"]
    server = resource.get("properties", {}).get("server")
    name = resource["id"] if server is None else f"{server}/{resource['id']}"
    properties = {key: asked[key].get("properties", {}) for key in NAMES}
    request = {
        "principal": uid(subject["type"], subject["id"]),
        "action": uid("Action", action["name"]),
        "resource": uid(resource["type"], name),
        "context": {**asked.get("context", {}), **properties, "name": name},
    }
    result = cedarpy.is_authorized(request, POLICIES, [])
    if result.diagnostics.errors:
        print(request, result.diagnostics.errors, file=sys.stderr)
    return {"decision": result.allowed}


def decide_one_of_many(asked, one):
    try:
        return decide({**asked, **judged(one, False)})
    except Bad as bad:
        error = {"status": 400, "message": str(bad)}
        return {"decision": False, "context": {"error": error}}


def decide_all(asked):
    every = asked.get("evaluations", [])
    if not isinstance(every, list):
        raise Bad("evaluations is no array")
    if not every:
        return decide(asked)
    judged(asked, False)
    options = asked.get("options", {})
    if not isinstance(options, dict):
        raise Bad("options is no object")
    semantic = str(options.get("evaluations_semantic", "execute_all"))
    if semantic not in SEMANTICS:
        raise Bad("no such semantic")
    defaults = {key: asked[key] for key in (*NAMES, "context") if key in asked}
    answers = []
    for one in every:
        answers.append(decide_one_of_many(defaults, one))
        if answers[-1]["decision"] is SEMANTICS[semantic]:
            break
    return {"evaluations": answers}


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
        own = f"{SCHEME}://{self.headers['Host']}"
        return self.answer(200, {
            "policy_decision_point": own,
            "access_evaluation_endpoint": own + "/decide/one",
            "access_evaluations_endpoint": own + "/decide/many",
        })

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != "Bearer " + os.environ["PDP_TOKEN"]:
            return self.answer(401, "who asks?")
        does = {"/decide/one": decide, "/decide/many": decide_all}.get(self.path)
        if does is None:
            return self.answer(404, "no such endpoint")
        try:
            if self.headers.get_content_type() != "application/json":
                raise Bad("another Content-Type")
            return self.answer(200, does(json.loads(body)))
        except (Bad, ValueError) as bad:
            return self.answer(400, str(bad))


def end_with_the_test():
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_the_test, daemon=True).start()
server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
SCHEME = "http"
if "PDP_TLS" in os.environ:
    # A folder with its certificate, its key, and the authority of whoever may ask.
    folder = os.environ["PDP_TLS"]
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder + "/pdp.pem", folder + "/pdp.key")
    tls.load_verify_locations(folder + "/ca.pem")
    tls.verify_mode = ssl.CERT_REQUIRED
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    SCHEME = "https"
print("ready", server.server_address[1], flush=True)
server.serve_forever()
