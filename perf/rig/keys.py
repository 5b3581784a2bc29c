"""Keys, certificates and tokens of a run: made once under `perf/target`, for this machine only.

The handful of tokens for the function checks is signed here with the `openssl` program; the many
of the load come from `load tokens`, which signs them in one process.
"""

from __future__ import annotations

import base64
import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from procs import Trouble, run

ISSUER = "https://idp.example.com"
NAME = "portcullis.localhost"
AUDIENCE = f"http://{NAME}"
CLAIMS: dict[str, Any] = {"groups": ["engineering", "staff"], "client_id": "claude"}
KEY_VALUE = "bench-key-0123456789abcdef"
TOKEN_SECONDS = 86_400
TOKEN_REUSE_SECONDS = 36_000
SIGN_SECONDS = 400.0
# What could not be signed once is not tried again in every round of a run.
_REFUSED: dict[Path, str] = {}


def b64url(data: bytes) -> str:
    """Base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _openssl(*argv: str, cwd: Path) -> str:
    return run(["openssl", *argv], 60, cwd=cwd, name=f"openssl {argv[0]}")


def der_to_raw(der: bytes) -> bytes:
    """An ECDSA signature as JWS wants it: r and s in 32 bytes each (RFC 7518 section 3.4)."""
    if len(der) < 8 or der[0] != 0x30:
        raise ValueError("not a DER signature")
    at, numbers = 2, []
    for _ in range(2):
        if der[at] != 0x02:
            raise ValueError("not an integer")
        size = der[at + 1]
        numbers.append(int.from_bytes(der[at + 2 : at + 2 + size], "big"))
        at += 2 + size
    return b"".join(number.to_bytes(32, "big") for number in numbers)


@dataclass(frozen=True)
class Keys:
    """Files of one set of keys."""

    directory: Path

    @property
    def jwks(self) -> Path:
        """The public keys as a JWK set: kid `es` and `rs`."""
        return self.directory / "jwks.json"

    @property
    def ca(self) -> Path:
        """The certificate authority that signed the server certificate."""
        return self.directory / "ca.pem"

    @property
    def certificate(self) -> Path:
        """The server certificate with its authority's (ECDSA P-256)."""
        return self.directory / "server.pem"

    @property
    def certificate_key(self) -> Path:
        """Its key."""
        return self.directory / "server.key"

    @property
    def both(self) -> Path:
        """Certificate and key in one file, as HAProxy wants it."""
        return self.directory / "server.both.pem"

    def private(self, alg: str) -> Path:
        """The signing key (PKCS#8) of an algorithm."""
        return self.directory / ("es.key" if alg == "ES256" else "rs.key")

    def public(self, alg: str) -> Path:
        """The verification key (PEM) of an algorithm."""
        return self.directory / ("es.pub" if alg == "ES256" else "rs.pub")


def _jwk_ec(directory: Path) -> dict[str, str]:
    der = subprocess.run(
        ["openssl", "pkey", "-in", "es.key", "-pubout", "-outform", "DER"],
        cwd=directory,
        capture_output=True,
        timeout=30,
        check=True,
    ).stdout
    point = der[-65:]
    if point[0] != 4:
        raise Trouble("openssl gave a compressed point")
    return {
        "kty": "EC",
        "crv": "P-256",
        "kid": "es",
        "alg": "ES256",
        "use": "sig",
        "x": b64url(point[1:33]),
        "y": b64url(point[33:]),
    }


def _jwk_rsa(directory: Path) -> dict[str, str]:
    text = _openssl("rsa", "-in", "rs.key", "-modulus", "-noout", cwd=directory)
    modulus = bytes.fromhex(text.strip().split("=", 1)[1])
    return {
        "kty": "RSA",
        "kid": "rs",
        "alg": "RS256",
        "use": "sig",
        "n": b64url(modulus),
        "e": "AQAB",
    }


def make_keys(directory: Path) -> Keys:
    """Signing keys, JWK set and a server certificate; what is there already is kept."""
    keys = Keys(directory)
    if (directory / "done").exists():
        return keys
    directory.mkdir(parents=True, exist_ok=True)
    curve = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    _openssl("genpkey", *curve, "-out", "es.key", cwd=directory)
    _openssl(
        "genpkey",
        "-algorithm",
        "RSA",
        "-pkeyopt",
        "rsa_keygen_bits:2048",
        "-out",
        "rs.key",
        cwd=directory,
    )
    for name in ("es", "rs"):
        _openssl("pkey", "-in", f"{name}.key", "-pubout", "-out", f"{name}.pub", cwd=directory)
    keys.jwks.write_text(json.dumps({"keys": [_jwk_ec(directory), _jwk_rsa(directory)]}))
    _openssl("genpkey", *curve, "-out", "ca.key", cwd=directory)
    _openssl(
        "req",
        "-x509",
        "-new",
        "-key",
        "ca.key",
        "-subj",
        "/CN=bench authority",
        "-days",
        "365",
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "keyUsage=critical,keyCertSign",
        "-out",
        "ca.pem",
        cwd=directory,
    )
    _openssl("genpkey", *curve, "-out", "server.key", cwd=directory)
    _openssl(
        "req",
        "-new",
        "-key",
        "server.key",
        "-subj",
        f"/CN={NAME}",
        "-out",
        "server.csr",
        cwd=directory,
    )
    (directory / "server.ext").write_text(
        f"subjectAltName=DNS:{NAME},DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n"
        "basicConstraints=CA:FALSE\n"
    )
    _openssl(
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-days",
        "365",
        "-set_serial",
        "2",
        "-extfile",
        "server.ext",
        "-out",
        "server.pem",
        cwd=directory,
    )
    keys.both.write_text(keys.certificate.read_text() + keys.certificate_key.read_text())
    (directory / "upstream.key").write_text(KEY_VALUE)
    (directory / "done").write_text("")
    return keys


def sign(keys: Keys, alg: str, payload: dict[str, Any], kid: Optional[str] = None) -> str:
    """One compact JWS."""
    head = {"alg": alg, "typ": "at+jwt", "kid": kid or ("es" if alg == "ES256" else "rs")}
    text = f"{b64url(json.dumps(head).encode())}.{b64url(json.dumps(payload).encode())}"
    done = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", str(keys.private(alg))],
        input=text.encode(),
        capture_output=True,
        timeout=30,
        check=True,
    )
    raw = der_to_raw(done.stdout) if alg == "ES256" else done.stdout
    return f"{text}.{b64url(raw)}"


def check_tokens(keys: Keys, alg: str, audience: str = AUDIENCE) -> dict[str, Optional[str]]:
    """A good token and one of each kind that must be refused; None means no header at all."""
    now = int(time.time())
    good = {
        "iss": ISSUER,
        "aud": audience,
        "sub": "user-check",
        "iat": now - 5,
        "exp": now + 3600,
        **CLAIMS,
    }
    token = sign(keys, alg, good)
    body, signature = token.rsplit(".", 1)
    # The middle of the signature, not its end: the last characters may hold unused bits.
    at = len(signature) // 2
    swapped = "A" if signature[at] != "A" else "B"
    return {
        "good": token,
        "bad signature": f"{body}.{signature[:at]}{swapped}{signature[at + 1:]}",
        "wrong audience": sign(keys, alg, {**good, "aud": "https://other.example.com"}),
        "expired": sign(keys, alg, {**good, "iat": now - 7200, "exp": now - 3600}),
        "no token": None,
    }


def token_file(keys: Keys, load: Path, alg: str, count: int, part: int = 0) -> Path:
    """A file of `count` tokens of distinct subjects, made new when older than ten hours."""
    path = keys.directory / f"tokens.{alg}.{count}.{part}"
    try:
        if time.time() - path.stat().st_mtime < TOKEN_REUSE_SECONDS:
            return path
    except OSError:
        pass
    if path in _REFUSED:
        raise Trouble(f"tokens: {_REFUSED[path]}")
    argv = [
        str(load),
        "tokens",
        "--key",
        str(keys.private(alg)),
        "--alg",
        alg,
        "--kid",
        "es" if alg == "ES256" else "rs",
        "--count",
        str(count),
        "--issuer",
        ISSUER,
        "--audience",
        AUDIENCE,
        "--expires",
        str(TOKEN_SECONDS),
    ]
    # A part of its own differs in a claim that nobody reads: other bytes, the same decisions.
    for name, value in {**CLAIMS, "part": part}.items():
        argv += ["--claim", f"{name}={json.dumps(value)}"]
    try:
        text = run(argv, SIGN_SECONDS, name="load tokens")
        if len(text.split()) != count:
            raise Trouble(f"load tokens gave {len(text.split())} of {count}")
    except Trouble as trouble:
        _REFUSED[path] = str(trouble)
        raise
    part_path = path.with_suffix(".part")
    part_path.write_text(text)
    part_path.replace(path)
    return path
