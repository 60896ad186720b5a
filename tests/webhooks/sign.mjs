// Reads one JSON object per line: `library`, `secret`, `id` and `body`. Prints the headers with which the official library of the provider
// signs the body, as JSON.

import { createInterface } from "node:readline";

import { sign } from "@octokit/webhooks-methods";
import { Webhook } from "standardwebhooks";
import Stripe from "stripe";

const stripe = new Stripe("sk_test_unused");

const libraries = {
  stripe: async (secret, id, payload) => ({
    "stripe-signature": stripe.webhooks.generateTestHeaderString({ payload, secret }),
  }),
  github: async (secret, id, payload) => ({
    "x-hub-signature-256": await sign(secret, payload),
    "x-github-event": "push",
    "x-github-delivery": id,
  }),
  standard_webhooks: async (secret, id, payload) => {
    const now = new Date();
    return {
      "webhook-id": id,
      "webhook-timestamp": String(Math.floor(now.getTime() / 1000)),
      "webhook-signature": new Webhook(secret).sign(id, now, payload),
    };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { library, secret, id, body } = JSON.parse(line);
  console.log(JSON.stringify(await libraries[library](secret, id, body)));
}
