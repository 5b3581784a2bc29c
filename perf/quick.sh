#!/bin/bash
# A first reading, end to end: CPU time per request of the gateway with all checks on, and of nginx as a
# bare relay, in turns within one run. Not a benchmark to be quoted: see README.md for what it is not.
#
#   perf/quick.sh [ROUNDS] [SECONDS]
#
# Needs target/release/portcullis, nginx and wrk (Debian: nginx-light, wrk). The relay under test runs on
# CPU 0; the upstream (nginx, a constant answer) and wrk share CPU 1. Everything is on loopback.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5} seconds=${2:-4} connections=16
gateway=${GATEWAY:-$PWD/target/release/portcullis}
dir=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$dir"
}
trap finish EXIT

body='{"method":"tools/call","params":{"name":"search_repositories","arguments":{"query":"QQ"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}},"jsonrpc":"2.0","id":7}'
fill=$(printf 'q%.0s' $(seq 1 $((300 - ${#body} + 2))))
body=${body/QQ/$fill}
[ ${#body} -eq 300 ]
answer='{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"3 repositories"}]}}'

common="daemon off; worker_processes 1; error_log $dir/error.log;
events { worker_connections 1024; }"
paths="access_log off; client_body_temp_path $dir/b; proxy_temp_path $dir/p; fastcgi_temp_path $dir/f;
uwsgi_temp_path $dir/u; scgi_temp_path $dir/s; keepalive_requests 100000000;"
cat > "$dir/upstream.conf" <<CONF
pid $dir/upstream.pid; $common
http { $paths default_type application/json;
  server { listen 127.0.0.1:18090; location / { return 200 '$answer'; } } }
CONF
cat > "$dir/relay.conf" <<CONF
pid $dir/relay.pid; $common
http { $paths
  upstream mcp { server 127.0.0.1:18090; keepalive 64; keepalive_requests 100000000; }
  server { listen 127.0.0.1:18091;
    location / { proxy_pass http://mcp; proxy_http_version 1.1; proxy_set_header Connection ""; } } }
CONF
mkdir "$dir/policies"
cat > "$dir/policies/bench.cedar" <<'CONF'
@id("staff-may-connect")
permit (principal in Group::"staff", action == Action::"connect", resource);
@id("engineers-use-github")
permit (principal in Group::"engineering", action in Action::"use", resource in Server::"github");
CONF
echo -n bench-key-0123456789abcdef > "$dir/upstream.key"
"$gateway" token mint --init "$dir" > "$dir/init.log"
token=$("$gateway" token mint --key "$dir/key.pem" --issuer https://idp.example.com \
    --audience http://portcullis.localhost --subject ada \
    --claim 'groups=["engineering","staff"]' --claim 'client_id="claude"' --expires 86400)
cat > "$dir/gateway.toml" <<CONF
public_url = "http://portcullis.localhost"
[listen]
address = "127.0.0.1:18092"
[cores]
cpus = "0"
[[trust_provider]]
name = "corp"
issuer = "https://idp.example.com"
jwks_file = "jwks.json"
algorithms = ["ES256"]
user_claim = "sub"
[[server]]
name = "github"
url = "http://127.0.0.1:18090/mcp"
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
address = "127.0.0.1:18093"
CONF
cat > "$dir/call.lua" <<CONF
wrk.method = "POST"
wrk.headers["Host"] = "portcullis.localhost"
wrk.body = '$body'
wrk.headers["Authorization"] = "Bearer $token"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Accept"] = "application/json, text/event-stream"
wrk.headers["Mcp-Protocol-Version"] = "2026-07-28"
wrk.headers["Mcp-Method"] = "tools/call"
wrk.headers["Mcp-Name"] = "search_repositories"
wrk.headers["Traceparent"] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
wrk.headers["User-Agent"] = "mcp-client/2.4.0"
done = function(s) io.write(string.format("RESULT %d %d\n", s.requests, s.errors.status + s.errors.read)) end
CONF

taskset -c 1 nginx -c "$dir/upstream.conf" & pids+=($!)
taskset -c 0 nginx -c "$dir/relay.conf" & relay=$!; pids+=("$relay")
taskset -c 0 "$gateway" gateway --config "$dir/gateway.toml" 2> "$dir/gateway.log" & gate=$!; pids+=("$gate")
for port in 18090 18091 18092; do
    for _ in $(seq 100); do (exec 3<> /dev/tcp/127.0.0.1/$port) 2>/dev/null && break; sleep 0.05; done
done

ticks() { # PID FIELDS: clock ticks of a process, its threads and its children that serve
    local sum=0 pid
    for pid in "$1" $(pgrep -P "$1" || true); do
        sum=$((sum + $(awk "{print $2}" "/proc/$pid/stat")))
    done
    echo "$sum"
}
audit_ticks() { # those of the gateway's audit writer; 0 for a process that has none
    local sum=0 task
    for task in /proc/"$1"/task/*; do
        case $(cat "$task/comm") in audit*) sum=$(awk '{print $14 + $15}' "$task/stat") ;; esac
    done
    echo "$sum"
}
hertz=$(getconf CLK_TCK)
load() { taskset -c 1 wrk -t1 -c$connections -d"$2" -s "$dir/call.lua" "http://127.0.0.1:$1/mcp/github"; }
one() { # NAME PID PORT
    local all user audit out
    all=$(ticks "$2" '$14 + $15') user=$(ticks "$2" '$14') audit=$(audit_ticks "$2")
    out=$(load "$3" "${seconds}s" | awk '/^RESULT/ {print $2, $3}')
    all=$(($(ticks "$2" '$14 + $15') - all)) user=$(($(ticks "$2" '$14') - user))
    audit=$(($(audit_ticks "$2") - audit))
    echo "$1 $out $all $user $audit" | awk -v s="$seconds" -v us="$((1000000 / hertz))" '{
        printf "%-8s %7d requests, %d errors, %6.0f /s; CPU-us per request: %5.2f", $1, $2, $3, $2/s, $4*us/$2
        printf " (user %.2f, audit writer %.2f)\n", $5*us/$2, $6*us/$2 }'
}
load 18092 1s > "$dir/warm" || { cat "$dir/gateway.log"; exit 1; }
load 18091 1s > /dev/null
for _ in $(seq "$rounds"); do
    one gateway "$gate" 18092
    # A refusal may be a 200 too: only permitted calls that were answered count.
    sleep 0.5
    if grep -v -m1 '"decision":"permit".*"status":200,"upstream_status":200' "$dir/audit.jsonl"; then exit 1; fi
    : > "$dir/audit.jsonl"
    one nginx "$relay" 18091
done
