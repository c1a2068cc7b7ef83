// The official TypeScript client against one of our servers; prints what it saw as one line of JSON.
//
//   node client.mjs stdio COMMAND [ARGUMENT...]      node client.mjs sse|http URL [TOKEN]

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

function transportOf(kind, [target, ...rest]) {
  if (kind === "stdio") {
    return new StdioClientTransport({ command: target, args: rest, env: process.env, stderr: "inherit" });
  }
  const headers = rest[0] ? { Authorization: `Bearer ${rest[0]}` } : {};
  const options = { requestInit: { headers } };
  const url = new URL(target);
  return kind === "sse" ? new SSEClientTransport(url, options) : new StreamableHTTPClientTransport(url, options);
}

const [kind, ...target] = process.argv.slice(2);
const client = new Client({ name: "outside-client", version: "1.0.0" });
await client.connect(transportOf(kind, target));

// Listing first makes the client check structured results against the published output schemas.
const { tools } = await client.listTools();
const bad = await client.callTool({ name: "generate", arguments: { product_image: "nowhere.png", widht: 512 } });
const unknown = await client.callTool({ name: "status", arguments: { job_id: "00000000-0000-4000-8000-000000000000" } });
const fonts = await client.callTool({ name: "fonts", arguments: {} });
const { contents } = await client.readResource({ uri: "ad://fonts" });
const { resourceTemplates } = await client.listResourceTemplates();

const made = [];
if (process.env.PRODUCT_IMAGE) {
  const progress = [];
  const job = await client.callTool(
    {
      name: "generate",
      arguments: { product_image: process.env.PRODUCT_IMAGE, text_content: "여름", width: 256, height: 256, seed: 3, wait_seconds: 40 },
    },
    undefined,
    { timeout: 5000, resetTimeoutOnProgress: true, maxTotalTimeout: 60000, onprogress: (note) => progress.push(note.progress) },
  );
  made.push({ job, progress });
}

await client.close();
console.log(JSON.stringify({ tools, bad, unknown, fonts, contents, resourceTemplates, made }));
