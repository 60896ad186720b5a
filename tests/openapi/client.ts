// Uses the TypeScript types that openapi-typescript generates from openapi.json, with openapi-fetch, against a running nobat.
//
// NOBAT_URL is the server, NOBAT_KEY an API key with the scopes tasks:write, tasks:read, tasks:replay, payload:view and config:write.
import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Task = components["schemas"]["Task"];
type Problem = components["schemas"]["Problem"];

const url = process.env["NOBAT_URL"];
const key = process.env["NOBAT_KEY"];
assert(url && key, "NOBAT_URL and NOBAT_KEY are required");

const client = createClient<paths>({ baseUrl: url, headers: { authorization: `Bearer ${key}` } });
const ENDED: readonly Task["status"][] = ["succeeded", "failed", "canceled", "expired"];

function received<T>({ data, error }: { data?: T; error?: Problem }): T {
    assert(data !== undefined, `expected data, received ${JSON.stringify(error)}`);
    return data;
}

function refused({ error }: { error?: Problem }): Problem {
    assert(error !== undefined, "expected a problem");
    return error;
}

async function submit(idempotencyKey: string): Promise<Task> {
    return received(
        await client.POST("/v1/tasks", {
            params: { header: { "Idempotency-Key": idempotencyKey } },
            body: { kind: "noop", payload: { sleep: 0.1 }, labels: { client: "typescript" }, retry: { max_attempts: 2 } },
        }),
    );
}

async function waitForEnd(id: string): Promise<Task> {
    const deadline = Date.now() + 30_000;
    while (Date.now() < deadline) {
        const task = received(await client.GET("/v1/tasks/{id}", { params: { path: { id }, query: { wait: 10 } } }));
        if (ENDED.includes(task.status)) {
            return task;
        }
    }
    assert.fail(`${id} has not ended within 30 seconds`);
}

async function checkTask(): Promise<void> {
    const idempotencyKey = `typescript-${Date.now()}`;
    const task = await submit(idempotencyKey);
    assert.equal(task.labels["client"], "typescript");
    const ended = await waitForEnd(task.id);
    assert.equal(ended.status, "succeeded");
    assert.deepEqual(ended.payload, { sleep: 0.1 });
    assert.equal(ended.attempts?.[0]?.number, 1);
    assert.equal((await submit(idempotencyKey)).id, task.id);
    const query = { kind: "noop", status: ended.status, created_after: ended.created_at, limit: 10 };
    const page = received(await client.GET("/v1/tasks", { params: { query } }));
    assert.equal(page.data.find((listed) => listed.id === task.id)?.finished_at, ended.finished_at);
    const params = { path: { id: task.id } };
    const explanation = received(await client.GET("/v1/tasks/{id}/explain", { params }));
    assert.equal(explanation.code, "succeeded");
    const replayed = received(await client.POST("/v1/tasks/{id}/replay", { params, body: { new_key: true } }));
    assert.equal(replayed.generation, 2);
}

async function checkOptionalBody(): Promise<void> {
    const secrets = received(await client.POST("/v1/callback-secret/rotate", { body: { grace_period: 0 } }));
    assert.equal(typeof secrets.secret, "string");
    assert.equal(secrets.secrets.length, 1);
}

async function checkProblems(): Promise<void> {
    const unknown = refused(await client.POST("/v1/tasks", { body: { kind: "unknown" } }));
    assert.deepEqual([unknown.status, unknown.code, unknown.errors?.[0]?.pointer], [422, "unknown_kind", "/kind"]);
    const id = "task_00000000000000000000000000";
    const missing = refused(await client.GET("/v1/tasks/{id}", { params: { path: { id } } }));
    assert.deepEqual([missing.status, missing.code], [404, "task_not_found"]);
    const headers = { authorization: "Bearer nb_live_invalid" };
    assert.equal(refused(await client.GET("/v1/tasks", { headers })).code, "unauthorized");
}

// The compiler must reject all of these.
export function rejected(): void {
    // @ts-expect-error `kind` is required.
    void client.POST("/v1/tasks", { body: { payload: null } });
    // @ts-expect-error There is no such status.
    void client.GET("/v1/tasks", { params: { query: { status: "done" } } });
    // @ts-expect-error There is no such path.
    void client.GET("/v1/jobs");
}

await checkTask();
await checkOptionalBody();
await checkProblems();
const { data: document } = await client.GET("/openapi.json");
assert.equal(document?.["openapi"], "3.1.0");
console.log("the TypeScript client works");
