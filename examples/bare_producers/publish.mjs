// Ask for one execution from Node.js: a CloudEvent by hand, published with a confirm. Prints the execution id.
//
// node publish.mjs amqp://user:password@host:5672/vhost PROGRAM_ID '{"question": "Why is the sky blue?"}'

import { randomUUID } from "node:crypto";
import amqp from "amqplib";

const EXECUTE = "dspex.program.execute.v1";

// The command in its envelope, CloudEvents 1.0 in structured JSON.
function executeMessage(executionId, programId, inputs) {
  return {
    specversion: "1.0",
    id: randomUUID(),
    source: "/examples/bare_producers/node",
    type: EXECUTE,
    time: new Date().toISOString(),
    datacontenttype: "application/json",
    // The execution id is ours: sending the same one again does not run the program again.
    data: { execution_id: executionId, program_id: programId, inputs },
  };
}

// Resolves once the broker has stored the message; rejects where it has not.
async function publish(url, message) {
  const connection = await amqp.connect(url);
  try {
    const channel = await connection.createConfirmChannel(); // without confirms a message can be lost and nobody told
    let returned = false;
    let failed; // a missing exchange closes the channel
    channel.on("return", () => (returned = true)); // comes before the confirm
    channel.on("error", (error) => (failed = error));
    channel.publish("dspex.commands", EXECUTE, Buffer.from(JSON.stringify(message)), {
      contentType: "application/cloudevents+json",
      messageId: message.id,
      persistent: true,
      mandatory: true,
    });
    try {
      await channel.waitForConfirms();
    } catch (error) {
      throw failed ?? error;
    }
    if (returned) throw new Error("no queue takes the message: start a worker, or run `dspex declare`");
  } finally {
    await connection.close();
  }
}

const [url, programId, inputs] = process.argv.slice(2);
if (inputs === undefined) {
  console.error("usage: node publish.mjs URL PROGRAM_ID INPUTS_AS_JSON");
  process.exit(2);
}
const executionId = randomUUID();
await publish(url, executeMessage(executionId, programId, JSON.parse(inputs)));
console.log(executionId);
