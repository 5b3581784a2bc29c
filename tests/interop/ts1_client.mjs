// The TypeScript SDK's client of the first generation: lists everything and makes the calls of a
// plan; prints one JSON object.
// usage: [TOKEN=...] node ts1_client.mjs URL MODE PLAN     (MODE: legacy, the only era it speaks;
// PLAN: JSON, its `calls` are made in order, see tests/interop/many.rs)
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const [url, , planText] = process.argv.slice(2);
const plan = JSON.parse(planText);

/** What a call came to: its value, or the class, code and message of the error. */
async function outcome(run) {
  try {
    return { value: await run() };
  } catch (error) {
    return {
      error: { kind: error.constructor.name, code: error.code ?? null, message: error.message },
    };
  }
}

const texts = result => ({
  isError: result.isError ?? false,
  content: result.content.map(block => block.text ?? block.type),
});
const client = new Client({ name: 'portcullis-interop-ts1', version: '1' });
const headers = process.env.TOKEN ? { Authorization: `Bearer ${process.env.TOKEN}` } : {};
const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } });
const connected = await outcome(() => client.connect(transport));
if (connected.error) {
  console.log(JSON.stringify({ connect: connected }));
  process.exit(0);
}
const seen = {};
seen.tools = await outcome(async () => (await client.listTools()).tools.map(tool => tool.name));
seen.prompts = await outcome(async () => (await client.listPrompts()).prompts.map(p => p.name));
seen.resources = await outcome(async () => (await client.listResources()).resources.map(r => r.uri));
seen.calls = [];
for (const call of plan.calls)
  seen.calls.push(await outcome(async () => texts(await client.callTool(call))));
await client.close();
console.log(JSON.stringify(seen));
process.exit(0);
