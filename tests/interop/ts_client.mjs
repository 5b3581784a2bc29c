// The TypeScript SDK's client, driven by a plan; prints one JSON object of what it saw.
// usage: [TOKEN=...] [ISSUER=...] node ts_client.mjs URL MODE PLAN     (MODE: legacy or auto; PLAN:
// JSON, see tests/interop.rs)
//
// With ISSUER it has no token: it finds the authorization server through the gateway's challenge and
// gets one there as the client `delegate` of oidc.mjs.
import {
  Client,
  ClientCredentialsProvider,
  StreamableHTTPClientTransport,
} from '@modelcontextprotocol/client';

const ANNOUNCE_TRIES = 30;
const ANNOUNCE_WAIT_MS = 1000;
const [url, mode, planText] = process.argv.slice(2);
const plan = JSON.parse(planText);
const options = { capabilities: { elicitation: {}, sampling: {} } };
if (mode !== 'legacy') options.versionNegotiation = { mode };
const client = new Client({ name: 'portcullis-interop-ts', version: '1' }, options);
const elicited = [];
client.setRequestHandler('elicitation/create', request => {
  elicited.push(request.params.message);
  return { action: 'accept', content: plan.elicit?.content ?? {} };
});

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

/**
 * Has a change of the tools announced until the announcement arrives: on the listen stream, or in
 * the legacy era on the standalone stream, which may not be open yet at the first try.
 */
async function changed(trigger) {
  let arrived;
  const announcement = new Promise(resolve => (arrived = resolve));
  client.setNotificationHandler('notifications/tools/list_changed', () => arrived(true));
  const modern = client.getProtocolEra() === 'modern';
  const subscription = modern ? await client.listen({ toolsListChanged: true }) : null;
  let heard = false;
  for (let tries = 0; tries < ANNOUNCE_TRIES && !heard; tries += 1) {
    await client.callTool(trigger);
    const waited = new Promise(resolve => setTimeout(resolve, ANNOUNCE_WAIT_MS, false));
    heard = await Promise.race([announcement, waited]);
  }
  await subscription?.close();
  return heard;
}

const texts = result => ({
  isError: result.isError ?? false,
  content: result.content.map(block => block.text ?? block.type),
});
const headers = process.env.TOKEN ? { Authorization: `Bearer ${process.env.TOKEN}` } : {};
const { ISSUER: expectedIssuer } = process.env;
const authProvider =
  expectedIssuer &&
  new ClientCredentialsProvider({
    clientId: 'delegate',
    clientSecret: 'interop',
    scope: 'mcp:tools',
    expectedIssuer,
  });
const transport = new StreamableHTTPClientTransport(new URL(url), {
  requestInit: { headers },
  authProvider,
});
const connected = await outcome(() => client.connect(transport));
if (connected.error) {
  console.log(JSON.stringify({ connect: connected }));
  process.exit(0);
}
const seen = { era: client.getProtocolEra(), version: client.getNegotiatedProtocolVersion() };
seen.tools = await outcome(async () => (await client.listTools()).tools.map(tool => tool.name));
seen.prompts = await outcome(async () => (await client.listPrompts()).prompts.map(p => p.name));
seen.resources = await outcome(async () => (await client.listResources()).resources.map(r => r.uri));
seen.templates = await outcome(async () =>
  (await client.listResourceTemplates()).resourceTemplates.map(t => t.uriTemplate),
);
if (plan.call) seen.call = await outcome(async () => texts(await client.callTool(plan.call)));
if (plan.failing)
  seen.failing = await outcome(async () => texts(await client.callTool(plan.failing)));
if (plan.unknown)
  seen.unknown = await outcome(async () => texts(await client.callTool(plan.unknown)));
if (plan.calls) {
  seen.calls = [];
  for (const call of plan.calls)
    seen.calls.push(await outcome(async () => texts(await client.callTool(call))));
}
if (plan.progress) {
  const steps = [];
  const onprogress = note => steps.push(note.progress);
  seen.progress = await outcome(async () =>
    texts(await client.callTool(plan.progress, { onprogress })),
  );
  seen.steps = steps;
}
if (plan.elicit) {
  const ask = { name: plan.elicit[seen.era], arguments: plan.elicit.arguments ?? {} };
  seen.elicit = await outcome(async () => texts(await client.callTool(ask)));
  seen.elicited = elicited;
}
if (plan.read) {
  seen.read = await outcome(async () =>
    (await client.readResource({ uri: plan.read })).contents.map(c => c.text ?? c.blob),
  );
}
if (plan.readUnknown) {
  seen.readUnknown = await outcome(
    async () => (await client.readResource({ uri: plan.readUnknown })).contents,
  );
}
if (plan.prompt) {
  seen.prompt = await outcome(async () =>
    (await client.getPrompt(plan.prompt)).messages.map(m => m.content.text ?? m.content.type),
  );
}
if (plan.change) seen.changed = await outcome(() => changed(plan.change));
if (plan.again)
  seen.again = await outcome(async () => (await client.listTools()).tools.map(tool => tool.name));
await client.close();
console.log(JSON.stringify(seen));
process.exit(0);
