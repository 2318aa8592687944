// Receive webhooks of DSPex in Node.js: verified by the public library of Standard Webhooks, each handled once.
// Prints one line for each event.
//
// WEBHOOK_SECRET=whsec_... node receive.mjs PORT

import { createServer } from "node:http";
import { Webhook, WebhookVerificationError } from "standardwebhooks";

const MAX_BYTES = 256 * 1024; // DSPex sends a reference in the place of an event over 20 kB

const webhook = new Webhook(process.env.WEBHOOK_SECRET ?? "");

// DSPex sends a webhook again until it is answered with 2xx, always with the same id. In a service this is a unique
// column, written in the transaction that handles the event.
const seen = new Set();

function handle(event) {
  const { execution_id, program_id, error } = event.data;
  console.log(JSON.stringify({ type: event.type, id: execution_id ?? program_id, code: error?.code ?? null }));
}

// The bytes as they came: the signature is of them, not of what JSON.parse and JSON.stringify make of them.
async function read(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MAX_BYTES) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

async function receive(request) {
  if (request.method !== "POST") return 405;
  const body = await read(request);
  if (body === null) return 413;
  let event;
  try {
    event = webhook.verify(body, request.headers); // the signature, and that it is not older than 5 minutes
  } catch (error) {
    if (error instanceof WebhookVerificationError) return 401;
    return 400; // signed, but not JSON
  }
  const id = request.headers["webhook-id"];
  if (!seen.has(id)) {
    handle(event);
    seen.add(id); // after it was handled: where that fails, DSPex sends it again
  }
  return 204;
}

const server = createServer(async (request, response) => {
  let status = 500;
  try {
    status = await receive(request);
  } catch (error) {
    console.error(error);
  }
  response.writeHead(status, status === 413 ? { connection: "close" } : {}).end();
});
server.listen(Number(process.argv[2] ?? 8080), "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
