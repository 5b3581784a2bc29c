// A real OAuth provider (npm oidc-provider) on loopback: discovery, JWKS, client_credentials with
// resource indicators, ES256 at+jwt access tokens (RFC 9068).
// usage: node oidc.mjs PORT      (PORT 0 picks one; prints `ready PORT`)
//
// Two clients, both with secret `interop`: `workload` gets tokens without a human subject,
// `delegate` gets the claims email and groups too. Lines on stdin turn the keys: `rotate` signs
// with a new key and still lists the old one, `retire` lists the newest only; each answers `rotated
// KID...` with the listed keys, newest first. The end of stdin ends it.
import http from 'node:http';
import { createInterface } from 'node:readline';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { Provider } from 'oidc-provider';

const TOKEN_SECONDS = 300;
// What is granted to whoever asks; not announced, so that nobody asks for more than it knows of.
const SCOPE = 'mcp:tools';
const MORE = 'mcp:delete';
const secret = 'interop';

function newKey() {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), alg: 'ES256', use: 'sig' };
}

const client = id => ({
  client_id: id,
  client_secret: secret,
  redirect_uris: [],
  response_types: [],
  grant_types: ['client_credentials'],
  id_token_signed_response_alg: 'ES256',
});

function provider(issuer, keys) {
  return new Provider(issuer, {
    jwks: { keys },
    clients: [client('workload'), client('delegate')],
    scopes: [SCOPE],
    cookies: { keys: [randomUUID()] },
    ttl: { ClientCredentials: TOKEN_SECONDS },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (context, audience) => ({
          scope: `${SCOPE} ${MORE}`,
          audience,
          accessTokenFormat: 'jwt',
          accessTokenTTL: TOKEN_SECONDS,
          jwt: { sign: { alg: 'ES256', kid: keys[0].kid } },
        }),
      },
    },
    extraTokenClaims: (context, token) =>
      token.clientId === 'delegate'
        ? { email: 'dana@example.com', groups: ['engineering'] }
        : undefined,
  });
}

let keys = [newKey()];
let handle;
let jwksServed = 0;
const server = http.createServer((request, response) => {
  if (request.url === '/jwks') jwksServed += 1;
  if (request.url === '/observed') return response.end(JSON.stringify({ jwksServed }));
  handle(request, response);
});
server.listen(Number(process.argv[2]), '127.0.0.1', () => {
  const { port } = server.address();
  const issuer = `http://127.0.0.1:${port}`;
  const start = () => {
    handle = provider(issuer, keys).callback();
  };
  start();
  createInterface({ input: process.stdin })
    .on('line', line => {
      if (line === 'rotate') keys = [newKey(), ...keys];
      else if (line === 'retire') keys = keys.slice(0, 1);
      else return console.error(`oidc: unknown command ${line}`);
      start();
      console.log('rotated', ...keys.map(key => key.kid));
    })
    .on('close', () => process.exit(0));
  console.log('ready', port);
});
