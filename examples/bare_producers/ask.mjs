// Ask for executions from Node.js and wait for their results: they come to a reply queue of this process, and are
// matched by correlation id. Prints each execution as a line of JSON, in the order of the inputs.
//
// node ask.mjs amqp://user:password@host:5672/vhost PROGRAM_ID '{"question": "Why?"}' '{"question": "How?"}' ...

import { randomUUID } from "node:crypto";
import amqp from "amqplib";

const EXECUTE = "dspex.program.execute.v1";

class Client {
  #channel;
  #queue;
  #waiting = new Map(); // by correlation id

  static async connect(connection) {
    const client = new Client();
    client.#channel = await connection.createConfirmChannel();
    // Named by the broker, gone with the connection. The execution is in the database: ask for it then
    // (dspex.execution.get.v1), or send the same command again.
    ({ queue: client.#queue } = await client.#channel.assertQueue("", { exclusive: true }));
    await client.#channel.consume(client.#queue, (message) => client.#take(message), { noAck: true });
    client.#channel.on("return", ({ properties }) =>
      client.#settle(properties.correlationId, ({ reject }) =>
        reject(new Error("no queue takes the message: start a worker, or run `dspex declare`")),
      ),
    );
    return client;
  }

  // Resolves with the execution once it has ended, failed ones too; rejects where the command was refused.
  async execute(programId, inputs, { timeout = 60_000 } = {}) {
    const id = randomUUID();
    const answer = new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    const timer = setTimeout(
      () => this.#settle(id, ({ reject }) => reject(new Error(`no answer within ${timeout} ms`))),
      timeout,
    );
    const message = {
      specversion: "1.0",
      id,
      source: "/examples/bare_producers/node",
      type: EXECUTE,
      time: new Date().toISOString(),
      datacontenttype: "application/json",
      data: { execution_id: randomUUID(), program_id: programId, inputs },
    };
    this.#channel.publish("dspex.commands", EXECUTE, Buffer.from(JSON.stringify(message)), {
      contentType: "application/cloudevents+json",
      messageId: id,
      replyTo: this.#queue,
      correlationId: id,
      persistent: true,
      mandatory: true,
    });
    try {
      await this.#channel.waitForConfirms();
      return await answer;
    } finally {
      clearTimeout(timer);
    }
  }

  #take(message) {
    if (message === null) return; // the queue is gone
    const { answer, error } = JSON.parse(message.content).data;
    this.#settle(message.properties.correlationId, ({ resolve, reject }) =>
      error ? reject(new Error(`${error.code}: ${error.message}`)) : resolve(answer),
    );
  }

  #settle(id, settle) {
    const waiting = this.#waiting.get(id); // none: an answer that came twice, or too late
    if (waiting === undefined) return;
    this.#waiting.delete(id);
    settle(waiting);
  }
}

const [url, programId, ...rows] = process.argv.slice(2);
if (rows.length === 0) {
  console.error("usage: node ask.mjs URL PROGRAM_ID INPUTS_AS_JSON ...");
  process.exit(2);
}
const connection = await amqp.connect(url);
try {
  const client = await Client.connect(connection);
  const executions = await Promise.all(rows.map((row) => client.execute(programId, JSON.parse(row))));
  for (const execution of executions) console.log(JSON.stringify(execution));
} finally {
  await connection.close();
}
