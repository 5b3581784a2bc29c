"""Portcullis under the rig: with every check on, and with stages taken out."""

from __future__ import annotations

from dataclasses import replace

from keys import AUDIENCE, ISSUER, NAME
from place import Launch, Peer, Place

STAGES = ("token", "policy", "credential", "audit", "inspect")

# Servers at `/mcp` beside the one that is called.
BESIDE = ("left", "right")

POLICIES = """@id("staff-may-connect")
permit (principal in Group::"staff", action == Action::"connect", resource);
@id("engineers-use-bench")
permit (principal in Group::"engineering",
  action in [Action::"session", Action::"list", Action::"use"], resource in Server::"bench");
@id("nobody-reads-the-secret")
forbid (principal, action == Action::"tools/call", resource == Tool::"bench/secret");
"""


def configuration(place: Place) -> str:
    """The gateway's configuration: one worker, both keys, an API key for the upstream, audit on."""
    keys = place.keys
    tls = ""
    if place.tls_down:
        tls = (
            f'[listen.tls]\ncertificate = "{keys.certificate}"\n'
            f'private_key = "file:{keys.certificate_key}"\n'
        )
    # By name over TLS: the certificate is checked, so it must be dialled by what it says.
    url = (
        f"https://localhost:{place.upstream}"
        if place.tls_up
        else f"http://127.0.0.1:{place.upstream}"
    )
    ca_file = f'ca_file = "{keys.ca}"\n' if place.tls_up else ""
    public = f"https://{NAME}" if place.tls_down else f"http://{NAME}"
    # One audience for all scenarios, so that the same tokens serve with TLS and without.
    more = f'audiences = ["{AUDIENCE}"]\n' if place.tls_down else ""
    return f"""public_url = "{public}"
[listen]
address = "127.0.0.1:{place.listen}"
{tls}[cores]
cpus = "{place.cpus}"
[[trust_provider]]
name = "corp"
issuer = "{ISSUER}"
jwks_file = "{keys.jwks}"
algorithms = ["ES256", "RS256"]
user_claim = "sub"
{more}[[server]]
name = "bench"
url = "{url}/mcp"
credential = "key"
trust_private_addresses = true
{ca_file}[[credential]]
name = "key"
kind = "api_key"
header = "X-Api-Key"
secret = "file:{keys.directory / 'upstream.key'}"
[policy]
directory = "policies"
[audit]
path = "audit.jsonl"
[admin]
address = "127.0.0.1:{place.admin}"
"""


def gateway(place: Place, program: str = "portcullis", off: tuple[str, ...] = ()) -> Launch:
    """Portcullis; `off` names stages for a build with the feature `ablation`."""
    text = configuration(place)
    path = place.write("gateway.toml", text)
    place.write("policies/bench.cedar", POLICIES)
    env = {"PORTCULLIS_ABLATE": ",".join(off)} if off else {}
    return Launch(
        [str(place.programs.found[program]), "gateway", "--config", str(path)],
        env,
        text + POLICIES + (f"PORTCULLIS_ABLATE={env['PORTCULLIS_ABLATE']}\n" if env else ""),
    )


def hub(place: Place) -> Launch:
    """The same with three servers at `/mcp`, of which one is called; all are the one upstream."""
    servers, rules = "", ""
    for name in BESIDE:
        servers += f"""[[server]]
name = "{name}"
url = "http://127.0.0.1:{place.upstream}/mcp"
trust_private_addresses = true
"""
        rules += f"""@id("engineers-use-{name}")
permit (principal in Group::"engineering",
  action in [Action::"session", Action::"list", Action::"use"], resource in Server::"{name}");
"""
    launch = gateway(place)
    # A credential names the servers that it may be sent to, where there are several.
    whole = configuration(place).replace(
        'kind = "api_key"\n', 'kind = "api_key"\nservers = ["bench"]\n'
    )
    path = place.write("gateway.toml", whole + servers)
    place.write("policies/beside.cedar", rules)
    argv = [*launch.argv[:-1], str(path)]
    return replace(launch, argv=argv, settings=whole + servers + POLICIES + rules)


# How the load speaks to `/mcp`; what the gateway asks its servers on its own is no call.
AT_THE_HUB = {"path": "/mcp", "prefix": "bench_", "asides": str(2 * (1 + len(BESIDE)))}


def _at_the_hub(_place: Place, _port: int) -> dict[str, str]:
    """Nothing has to be asked for it."""
    return AT_THE_HUB


def two_workers(place: Place) -> Launch:
    """The same on both CPUs: for memory and start, never for CPU per request."""
    return gateway(replace(place, cpus="0-1"))


def _ablated(name: str, label: str, off: tuple[str, ...]) -> Peer:
    def make(place: Place) -> Launch:
        return gateway(place, "portcullis-ablation", off)

    return Peer(
        name, "ablation", "portcullis-ablation", label, make, caches_tokens=True, judged=False
    )


ABLATIONS = [
    _ablated("ablation-none", "Portcullis, build for ablation, nothing off", ()),
    *[_ablated(f"ablation-{stage}", f"Portcullis without {stage}", (stage,)) for stage in STAGES],
    _ablated("ablation-all", "Portcullis without all of these", STAGES),
]

PEERS = [
    Peer(
        "portcullis",
        "portcullis",
        "portcullis",
        "Portcullis: token, policy, credential, audit",
        gateway,
        checks=True,
        tool_rule=True,
        caches_tokens=True,
    ),
    Peer(
        "portcullis-2-workers",
        "portcullis",
        "portcullis",
        "Portcullis, two workers",
        two_workers,
        checks=True,
        tool_rule=True,
        caches_tokens=True,
    ),
    Peer(
        "portcullis-hub",
        "portcullis",
        "portcullis",
        "Portcullis at /mcp, one server of three",
        hub,
        checks=True,
        tool_rule=True,
        caches_tokens=True,
        tls=False,
        prepare=_at_the_hub,
    ),
    *ABLATIONS,
]
