"""A gateway with every check on, a server with one answer, and an agent with one request.

All three go in lock-step: nobody acts before the gateway's worker sleeps in its event loop again. So what
the worker does for one request is the same each time, whatever the machine is busy with.
"""

import contextlib
import os
import socket
import subprocess
import threading
import time
import urllib.request

ANSWER = b'{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"3 repositories"}]}}'
WITHIN = 30.0  # seconds for anything that is waited for
WORKER = "worker-0"

POLICY = """
@id("staff-may-connect")
permit (principal in Group::"staff", action == Action::"connect", resource);
@id("engineers-use-github")
permit (principal in Group::"engineering", action in Action::"use", resource in Server::"github");
"""

CONFIG = """
public_url = "http://portcullis.localhost"
[listen]
address = "127.0.0.1:{listen}"
[cores]
cpus = "{cpu}"
driver = "{driver}"
[[trust_provider]]
name = "corp"
issuer = "https://idp.example.com"
jwks_file = "jwks.json"
algorithms = ["ES256"]
user_claim = "sub"
[[server]]
name = "github"
url = "http://127.0.0.1:{upstream}/mcp"
credential = "key"
trust_private_addresses = true
[[credential]]
name = "key"
kind = "api_key"
header = "X-Api-Key"
secret = "file:upstream.key"
[policy]
directory = "policies"
[audit]
path = "audit.jsonl"
[admin]
address = "127.0.0.1:{admin}"
"""


# No proxy of the machine stands between us and loopback.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Trouble(Exception):
    """What was measured cannot be used, and why."""


def wait_for(what, condition):
    """Polls until `condition` holds; gives back what it answered."""
    end = time.monotonic() + WITHIN
    while time.monotonic() < end:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.0002)
    raise Trouble(f"waited {WITHIN:.0f} s for {what}")


def listening():
    """Ports that somebody listens on."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    return {int(row[1].partition(":")[2], 16) for row in rows if row[3] == "0A"}


def free_ports(count):
    """Ports that nobody listens on right now."""
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]


def request_bytes(token):
    """A modern call with a body of 300 bytes, as a usual client sends it."""

    def body(query):
        return (
            '{"method":"tools/call","params":{"name":"search_repositories","arguments":{"query":"'
            + query
            + '"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
            '"io.modelcontextprotocol/clientCapabilities":{}}},"jsonrpc":"2.0","id":7}'
        )

    text = body("q" * (300 - len(body(""))))
    head = (
        "POST /mcp/github HTTP/1.1\r\nHost: portcullis.localhost\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        "Accept: application/json, text/event-stream\r\nMcp-Protocol-Version: 2026-07-28\r\n"
        "Mcp-Method: tools/call\r\nMcp-Name: search_repositories\r\n"
        "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n"
        f"User-Agent: mcp-client/2.4.0\r\nContent-Length: {len(text)}\r\n\r\n"
    )
    return (head + text).encode()


def read_message(connection):
    """One HTTP message with a Content-Length; None at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        more = connection.recv(65536)
        if not more:
            return None
        body += more
    return head, body


class Upstream(threading.Thread):
    """An MCP server with one answer, which it gives once `rest` returns."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.rest = lambda: None
        self.connections = 0
        self.with_key = 0

    def close(self):
        """Ends the thread before the descriptor is free: it would accept on whatever gets that number."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        if self.is_alive():
            self.join(WITHIN)
        self.listener.close()

    def run(self):
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(ANSWER)}\r\n\r\n"
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return  # closed
            self.connections += 1
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection:
                while (message := read_message(connection)) is not None:
                    fields = message[0].lower()
                    if b"\r\nx-api-key: bench-key" in fields and b"\r\nauthorization:" not in fields:
                        self.with_key += 1
                    self.rest()
                    connection.sendall(head.encode() + ANSWER)


class Gateway:
    """The release binary with its files in `directory`, one worker, one upstream."""

    def __init__(self, binary, directory, driver, cpu, ports):
        self.directory = directory
        self.upstream = Upstream()
        listen, admin = ports or free_ports(2)
        self.admin = admin
        self.port = listen
        os.makedirs(os.path.join(directory, "policies"))
        self._write("policies/gate.cedar", POLICY)
        self._write("upstream.key", "bench-key-0123456789abcdef")
        self._write(
            "gateway.toml",
            CONFIG.format(
                listen=listen, admin=admin, cpu=cpu, driver=driver, upstream=self.upstream.port
            ),
        )
        self.binary = binary
        self._run("token", "mint", "--init", directory)
        claims = ["--claim", 'groups=["engineering","staff"]', "--claim", 'client_id="claude"']
        token = self._run(
            *("token", "mint", "--key", os.path.join(directory, "key.pem")),
            *("--issuer", "https://idp.example.com", "--audience", "http://portcullis.localhost"),
            *("--subject", "ada", "--expires", "86400", *claims),
        )
        self.request = request_bytes(token.strip())
        self.process = None
        self.agent = None
        self.sent = 0

    def start(self, before=(), environment=None):
        """`before` is a program that runs the gateway, such as strace, with its arguments."""
        self.upstream.start()
        # The kernel closes what a ring held some time after its process is gone: the gateway before this one
        # would take our connection and reset it.
        wait_for(f"port {self.port} to be free", lambda: self.port not in listening())
        log = open(os.path.join(self.directory, "gateway.log"), "wb")
        config = os.path.join(self.directory, "gateway.toml")
        self.process = subprocess.Popen(
            [*before, self.binary, "gateway", "--config", config],
            stderr=log,
            stdout=log,
            stdin=subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", **(environment or {})},
        )
        log.close()
        try:
            # It listens before it has read its keys, and says when it has.
            wait_for("the gateway to be ready", self._ready)
            wait_for("the gateway to listen", self._connect)
            self.pid = self.process.pid if not before else self._child()
            self.worker = self._thread(WORKER)
            self.upstream.rest = self.rest
        except Trouble as trouble:
            raise Trouble(f"{trouble}: {self.log()}") from None

    def rest(self):
        """Returns when the worker sleeps: state S, thrice in a row."""
        path = f"/proc/{self.pid}/task/{self.worker}/stat"

        def asleep():
            for _ in range(3):
                with open(path, encoding="ascii") as file:
                    if file.read().rpartition(")")[2].split()[0] != "S":
                        return False
            return True

        wait_for("the worker to sleep", asleep)

    def call(self, count):
        """So many requests, each sent when the worker sleeps. All must be answered with 200."""
        for _ in range(count):
            self.rest()
            try:
                self.agent.sendall(self.request)
                self.sent += 1
                answer = read_message(self.agent)
            except OSError as error:
                raise Trouble(f"the connection to the gateway: {error}; {self.log()}") from None
            if answer is None or not answer[0].startswith(b"HTTP/1.1 200 ") or answer[1] != ANSWER:
                raise Trouble(f"a request was not answered as it should be: {answer}; {self.log()}")
        self.rest()

    def check(self):
        """Every request went upstream, with the credential and without the token, over one connection."""
        seen = (self.upstream.with_key, self.upstream.connections)
        if seen != (self.sent, 1):
            raise Trouble(f"{self.sent} sent; upstream saw (good ones, connections) {seen}")

    def cpu_ns(self):
        """CPU time of the worker so far."""
        with open(f"/proc/{self.pid}/task/{self.worker}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[0])

    def threads(self):
        """Names of the threads, by id."""
        names = {}
        for task in os.listdir(f"/proc/{self.pid}/task"):
            # A thread may end while we look.
            with contextlib.suppress(OSError):
                with open(f"/proc/{self.pid}/task/{task}/comm", encoding="ascii") as file:
                    names[int(task)] = file.read().strip()
        return names

    def stop(self):
        if self.agent is not None:
            self.agent.close()
        if self.process is not None and self.process.poll() is None:
            # To the gateway, not to what traces it, which ends with it.
            target = getattr(self, "pid", self.process.pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(target, 15)
            try:
                self.process.wait(WITHIN)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.upstream.close()

    def log(self):
        with open(os.path.join(self.directory, "gateway.log"), encoding="utf-8") as file:
            return file.read()[-2000:]

    def _ready(self):
        if self.process.poll() is not None:
            raise Trouble(f"the gateway ended with {self.process.returncode}")
        try:
            with DIRECT.open(f"http://127.0.0.1:{self.admin}/readyz", timeout=WITHIN) as answer:
                return answer.status == 200
        except OSError:
            return False

    def _connect(self):
        if self.process.poll() is not None:
            raise Trouble(f"the gateway ended with {self.process.returncode}")
        try:
            self.agent = socket.create_connection(("127.0.0.1", self.port), timeout=WITHIN)
        except ConnectionRefusedError:
            return False
        self.agent.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return True

    def _child(self):
        def found():
            path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
            with open(path, encoding="ascii") as file:
                return file.read().split()

        return int(wait_for("the traced gateway", found)[0])

    def _thread(self, name):
        def found():
            return [task for task, comm in self.threads().items() if comm == name]

        return wait_for(f"a thread {name}", found)[0]

    def _write(self, name, text):
        with open(os.path.join(self.directory, name), "w", encoding="utf-8") as file:
            file.write(text)

    def _run(self, *arguments):
        done = subprocess.run(
            [self.binary, *arguments], capture_output=True, text=True, timeout=WITHIN, check=False
        )
        if done.returncode != 0:
            raise Trouble(f"{' '.join(arguments[:2])}: {done.stderr}")
        return done.stdout
