// Puts a bearer token on every request, for the conformance suite cannot send one.
// usage: SHIM_TOKEN=... node shim.mjs PORT UPSTREAM_ORIGIN     (PORT 0 picks one; no token: plain
// pass-through)
//
// It works on bytes, not on parsed messages: each request head gets one more line and everything
// else passes unchanged, so that odd white space, header case, Host and framing reach the gateway
// as they were sent. The way back is a plain pipe. When one side goes, the other goes too.
import net from 'node:net';

const HEAD_BYTES_MAX = 64 * 1024;
const [port, origin] = process.argv.slice(2);
const upstreamUrl = new URL(origin);
const token = process.env.SHIM_TOKEN;
const line = token ? Buffer.from(`Authorization: Bearer ${token}\r\n`) : Buffer.alloc(0);

/** Bytes of body that follow this head; the suite and the SDKs always send a length. */
function bodyLength(head) {
  const lengths = [];
  for (const row of head.split('\r\n').slice(1)) {
    const name = row.slice(0, row.indexOf(':')).toLowerCase();
    if (name === 'transfer-encoding') throw new Error('chunked requests are not supported');
    if (name === 'authorization' && token) throw new Error('the client sent a token of its own');
    if (name === 'content-length') lengths.push(Number(row.slice(row.indexOf(':') + 1).trim()));
  }
  if (lengths.length > 1 || !lengths.every(Number.isSafeInteger))
    throw new Error('bad Content-Length');
  return lengths[0] ?? 0;
}

/** Feeds request bytes through, adding the line after each request line. */
function rewriter(write) {
  let held = Buffer.alloc(0);
  let body = 0;
  return chunk => {
    held = held.length ? Buffer.concat([held, chunk]) : chunk;
    while (held.length) {
      if (body > 0) {
        const part = held.subarray(0, body);
        write(part);
        body -= part.length;
        held = held.subarray(part.length);
        continue;
      }
      const end = held.indexOf('\r\n\r\n');
      if (end < 0) {
        if (held.length > HEAD_BYTES_MAX) throw new Error('request head too long');
        return;
      }
      const head = held.subarray(0, end + 4);
      body = bodyLength(head.toString('latin1', 0, end));
      const first = head.indexOf('\r\n') + 2;
      write(Buffer.concat([head.subarray(0, first), line, head.subarray(first)]));
      held = held.subarray(head.length);
    }
  };
}

const server = net.createServer(client => {
  const upstream = net.connect(Number(upstreamUrl.port), upstreamUrl.hostname);
  client.setNoDelay(true);
  upstream.setNoDelay(true);
  const feed = rewriter(bytes => upstream.write(bytes));
  client.on('data', chunk => {
    try {
      feed(chunk);
    } catch (error) {
      console.error(`shim: ${error.message}`);
      client.destroy();
    }
  });
  upstream.pipe(client);
  client.on('error', () => {});
  upstream.on('error', error => console.error(`shim: upstream: ${error.code}`));
  client.on('close', () => upstream.destroy());
  upstream.on('close', failed => (failed ? client.destroy() : client.end()));
});
server.listen(Number(port), '127.0.0.1', () => console.log('ready', server.address().port));
process.stdin.resume().on('end', () => process.exit(0)); // the test that started us is gone
