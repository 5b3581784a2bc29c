// A lax upstream: it answers the modern and the legacy era from the body alone and looks at no
// header at all, neither Mcp-*, nor MCP-Protocol-Version, nor Origin, nor Host. What is refused in
// front of it, the gateway refused.
//
// Nothing of an answer, its head included, is sent before the answer is whole: `test_hold` waits for
// `test_release`. `GET /observed` tells how many calls were held and how many of those were
// cancelled by an end of their connection.
// usage: node lax.mjs PORT      (PORT 0 picks one; prints `ready PORT`)
import http from 'node:http';

const BODY_BYTES_MAX = 1024 * 1024;
const MODERN = '2026-07-28';
const cacheable = { ttlMs: 0, cacheScope: 'private' };
const complete = body => ({ resultType: 'complete', ...body });
const serverInfo = { name: 'portcullis-lax', version: '1' };
const capabilities = { tools: {}, prompts: {}, resources: {} };
const text = value => complete({ content: [{ type: 'text', text: value }] });

const tools = [
  {
    name: 'test_simple_text',
    description: 'Answers one text block',
    inputSchema: { type: 'object', properties: {} },
  },
  {
    name: 'test_mirrored_parameter',
    description: 'Has a parameter that the client mirrors into a header',
    inputSchema: {
      type: 'object',
      properties: { region: { type: 'string', 'x-mcp-header': 'Region' } },
      required: ['region'],
    },
  },
];

const methods = {
  'server/discover': () =>
    complete({
      supportedVersions: [MODERN],
      capabilities,
      _meta: { 'io.modelcontextprotocol/serverInfo': serverInfo },
      ...cacheable,
    }),
  initialize: params => ({ protocolVersion: params.protocolVersion, capabilities, serverInfo }),
  ping: () => ({}),
  'tools/list': () => complete({ tools, ...cacheable }),
  'tools/call': params =>
    text(`called ${params.name} with ${JSON.stringify(params.arguments ?? {})}`),
  'prompts/list': () => complete({ prompts: [], ...cacheable }),
  'resources/list': () => complete({ resources: [], ...cacheable }),
  'resources/templates/list': () => complete({ resourceTemplates: [], ...cacheable }),
};

const observed = { held: 0, cancelled: 0 };
const waiting = [];

/** Answers now, or, for the tool that holds, when it is released. */
function take(message, response, send) {
  const tool = message.method === 'tools/call' ? message.params?.name : undefined;
  if (tool !== 'test_hold') {
    send(...answer(message));
    if (tool === 'test_release') for (const go of waiting.splice(0)) go();
    return;
  }
  observed.held += 1;
  response.on('close', () => (observed.cancelled += response.writableEnded ? 0 : 1));
  waiting.push(() => send(...answer(message)));
}

function answer(message) {
  if (message.id === undefined) return [202, null];
  const method = Object.hasOwn(methods, message.method) ? methods[message.method] : null;
  const head = { jsonrpc: '2.0', id: message.id };
  if (method === null)
    return [404, { ...head, error: { code: -32601, message: 'Method not found' } }];
  return [200, { ...head, result: method(message.params ?? {}) }];
}

const server = http.createServer((request, response) => {
  const send = (status, body) => {
    response.writeHead(status, body === null ? {} : { 'content-type': 'application/json' });
    response.end(body === null ? undefined : JSON.stringify(body));
  };
  if (request.method === 'GET' && request.url === '/observed') return send(200, observed);
  if (request.method !== 'POST') return send(405, null);
  let body = '';
  request.setEncoding('utf8');
  request.on('data', chunk => {
    body += chunk;
    if (body.length > BODY_BYTES_MAX) request.destroy();
  });
  request.on('end', () => {
    let message;
    try {
      message = JSON.parse(body);
    } catch {
      return send(400, {
        jsonrpc: '2.0',
        id: null,
        error: { code: -32700, message: 'Parse error' },
      });
    }
    take(message, response, send);
  });
});
server.listen(Number(process.argv[2]), '127.0.0.1', () =>
  console.log('ready', server.address().port),
);
process.stdin.resume().on('end', () => process.exit(0)); // the test that started us is gone
