// The inspector's command line, one run for each list and call; prints one JSON object.
// usage: [TOKEN=...] node inspector_client.mjs URL MODE PLAN     (MODE: legacy or auto; PLAN: JSON,
// its `calls` are made in order, with `toolsOnly` it lists nothing else, see tests/interop/many.rs;
// HOME is written to)
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const RUN_MS = 60_000;
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024;
const [url, mode, planText] = process.argv.slice(2);
const plan = JSON.parse(planText);
const launcher = './node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js';
const program = fileURLToPath(new URL(launcher, import.meta.url));
const { TOKEN: token, ...env } = process.env;

/** What one run came to: its value, or what the inspector says about the error. */
function run(words, value) {
  const all = [program, '--cli', '--server-url', url, '--transport', 'http'];
  all.push('--protocol-era', mode, '--format', 'json', '--quiet', ...words);
  if (token) all.push('--header', `Authorization: Bearer ${token}`);
  const options = { env, encoding: 'utf8', timeout: RUN_MS, maxBuffer: OUTPUT_BYTES_MAX };
  const done = spawnSync(process.execPath, all, options);
  if (done.status !== 0)
    return { error: { kind: 'inspector', code: done.status, message: done.stderr } };
  const said = JSON.parse(done.stdout);
  return { value: value(said.result ?? said) };
}

const texts = result => ({
  isError: result.isError ?? false,
  content: result.content.map(block => block.text ?? block.type),
});
const list = (kind, name) => run(['--method', `${kind}/list`], all => all[kind].map(name));
const seen = { tools: list('tools', tool => tool.name) };
if (seen.tools.error) {
  console.log(JSON.stringify({ connect: seen.tools }));
  process.exit(0);
}
if (!plan.toolsOnly) {
  seen.prompts = list('prompts', prompt => prompt.name);
  seen.resources = list('resources', resource => resource.uri);
}
seen.calls = plan.calls.map(({ name, arguments: given = {} }) => {
  const words = ['--method', 'tools/call', '--tool-name', name];
  return run([...words, '--tool-args-json', JSON.stringify(given)], texts);
});
console.log(JSON.stringify(seen));
