// Shows events of one service and type as they happen, picked by headers: only what is picked is decoded.
//
//   npm install kafkajs @msgpack/msgpack
//   node events.js 127.0.0.1:9092 coreplane.events cache DriftDetected
"use strict";

const { Kafka, logLevel } = require("kafkajs");
const { decode } = require("@msgpack/msgpack");

const [broker, topic, service, type] = process.argv.slice(2);
const kafka = new Kafka({ clientId: "events.js", brokers: [broker], logLevel: logLevel.ERROR });
// Aborted transactions are left out unless readUncommitted is set. A group of its own: it sees every event.
const consumer = kafka.consumer({ groupId: `events.js-${process.pid}-${Date.now()}` });

async function main() {
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await consumer.run({
    eachMessage: async ({ message }) => {
      const { headers } = message;
      if (String(headers.service) !== service || String(headers.type) !== type) return;
      const event = decode(message.value);
      console.log(JSON.stringify({ setting: String(message.key), id: event.id, details: event.details }));
    },
  });
}

for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => consumer.disconnect().then(() => process.exit(0)));
main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
