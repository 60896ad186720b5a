// Durable BullMQ behind Fastify, for comparison with nobat.
// Redis runs with `appendfsync always`, so that a 202 means the same as with nobat: the task is on disk.
import Fastify from "fastify";
import Redis from "ioredis";
import { Queue, Worker } from "bullmq";

const [redisPort, concurrency] = process.argv.slice(2).map(Number);
const connect = () => new Redis(redisPort, "127.0.0.1", { maxRetriesPerRequest: null });
const queue = new Queue("tasks", { connection: connect() });
let done = 0;
if (concurrency > 0) {
  new Worker("tasks", async () => { done += 1; }, { connection: connect(), concurrency, removeOnComplete: { count: 1000 } });
}

const server = Fastify();
server.post("/v1/tasks", async (request, reply) => {
  const job = await queue.add(request.body.kind, request.body);
  reply.code(202);
  return { id: job.id };
});
server.get("/done", async () => ({ done }));
console.log(new URL(await server.listen({ host: "127.0.0.1", port: 0 })).host);
