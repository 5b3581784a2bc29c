// Drives `mcp-remote` as a desktop client does: it speaks MCP over stdio to a child that reaches the
// URL. Lists everything and makes the calls of a plan; prints one JSON object.
// usage: [TOKEN=...] node stdio_client.mjs URL MODE PLAN     (MODE: legacy or auto, of mcp-remote;
// PLAN: JSON, its `calls` are made in order, see tests/interop/many.rs; HOME is written to)
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import path from 'node:path';

const REVISION = '2025-11-25';
const ANSWER_MS = 60_000;
const [url, mode, planText] = process.argv.slice(2);
const plan = JSON.parse(planText);
const program = fileURLToPath(new URL('./node_modules/mcp-remote/dist/proxy.js', import.meta.url));
const words = [program, url, '--transport', 'http-only', '--protocol', mode];
if (process.env.TOKEN) {
  const file = path.join(process.env.HOME, 'headers');
  writeFileSync(file, `Authorization: Bearer ${process.env.TOKEN}\n`);
  words.push('--header-file', file);
}
const { TOKEN: _, ...env } = process.env;
const child = spawn(process.execPath, words, { env, stdio: ['pipe', 'pipe', 'inherit'] });
const waiting = new Map();
let next = 1;

createInterface({ input: child.stdout }).on('line', line => {
  const message = JSON.parse(line);
  const settle = message.method === undefined && waiting.get(message.id);
  if (!settle) return;
  waiting.delete(message.id);
  settle(message);
});
child.on('exit', code => {
  for (const settle of waiting.values())
    settle({ error: { code: null, message: `mcp-remote ended with ${code}` } });
});

const send = message => child.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);

/** What a request came to: its value, or the code and message of the error. */
function ask(method, params, value) {
  const id = next++;
  return new Promise(resolve => {
    const late = () => resolve({ error: { kind: 'late', code: null, message: method } });
    const timer = setTimeout(late, ANSWER_MS);
    waiting.set(id, message => {
      clearTimeout(timer);
      resolve(message.error ? { error: message.error } : { value: value(message.result) });
    });
    send({ id, method, params });
  });
}

const texts = result => ({
  isError: result.isError ?? false,
  content: result.content.map(block => block.text ?? block.type),
});
const clientInfo = { name: 'portcullis-interop-stdio', version: '1' };
const hello = { protocolVersion: REVISION, capabilities: {}, clientInfo };
const connected = await ask('initialize', hello, result => result.protocolVersion);
const seen = {};
if (connected.error) {
  seen.connect = connected;
} else {
  send({ method: 'notifications/initialized' });
  seen.tools = await ask('tools/list', {}, result => result.tools.map(tool => tool.name));
  seen.prompts = await ask('prompts/list', {}, result => result.prompts.map(p => p.name));
  seen.resources = await ask('resources/list', {}, result => result.resources.map(r => r.uri));
  seen.calls = [];
  for (const call of plan.calls)
    seen.calls.push(await ask('tools/call', { arguments: {}, ...call }, texts));
}
child.kill();
console.log(JSON.stringify(seen));
process.exit(0);
