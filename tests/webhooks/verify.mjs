// Reads one request per line, and prints for each `true` if the official library accepts its signature, otherwise `false`.

import { createInterface } from "node:readline";

import { Webhook, WebhookVerificationError } from "standardwebhooks";

for await (const line of createInterface({ input: process.stdin })) {
  const { secret, headers, body } = JSON.parse(line);
  try {
    new Webhook(secret).verify(Buffer.from(body), headers);
    console.log("true");
  } catch (error) {
    if (!(error instanceof WebhookVerificationError)) throw error;
    console.log("false");
  }
}
