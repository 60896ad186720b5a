"""Uses the Python client that openapi-python-client generates from openapi.json against a running nobat.

NOBAT_URL is the server, NOBAT_KEY an API key with the scopes tasks:write, tasks:read, tasks:replay, payload:view and config:write.
"""

import importlib
import os
import pkgutil
import time
from typing import TypeVar

import nobat_client
from httpx import Timeout
from nobat_client import AuthenticatedClient
from nobat_client.api.callbacks import rotate_callback_secret
from nobat_client.api.health import openapi
from nobat_client.api.tasks import explain_task, get_task, list_tasks, replay_task, submit_task
from nobat_client.models import (
    CallbackSecrets,
    Explanation,
    ExplainCode,
    OpenapiResponse200,
    Problem,
    ProblemCode,
    Replay,
    RetrySubmission,
    RotateSecret,
    Status,
    Submission,
    SubmissionLabelsType0,
    Task,
    TaskPage,
)

T = TypeVar("T")

ENDED = (Status.SUCCEEDED, Status.FAILED, Status.CANCELED, Status.EXPIRED)
PAYLOAD = {"sleep": 0.1}


def expect(kind: type[T], response: object) -> T:
    assert isinstance(response, kind), f"expected {kind.__name__}, received {response!r}"
    return response


def import_all_modules() -> int:
    modules = list(pkgutil.walk_packages(nobat_client.__path__, "nobat_client."))
    for module in modules:
        importlib.import_module(module.name)
    return len(modules)


def submit(client: AuthenticatedClient, idempotency_key: str) -> Task:
    labels = SubmissionLabelsType0.from_dict({"client": "python"})
    body = Submission(kind="noop", payload=PAYLOAD, labels=labels, retry=RetrySubmission(max_attempts=2))
    task = expect(Task, submit_task.sync(client=client, body=body, idempotency_key=idempotency_key))
    assert task.labels["client"] == "python" and task.max_attempts == 2, task
    return task


def wait_for_end(client: AuthenticatedClient, task_id: str) -> Task:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        task = expect(Task, get_task.sync(task_id, client=client, wait=10))
        if task.status in ENDED:
            return task
    raise AssertionError(f"{task_id} has not ended within 30 seconds")


def find_in_list(client: AuthenticatedClient, task: Task) -> Task:
    page = expect(TaskPage, list_tasks.sync(client=client, kind="noop", status=task.status, created_after=task.created_at, limit=10))
    return next(listed for listed in page.data if listed.id == task.id)


def check_task(client: AuthenticatedClient) -> None:
    key = f"python-{time.time_ns()}"
    task = submit(client, key)
    ended = wait_for_end(client, task.id)
    assert ended.status is Status.SUCCEEDED and ended.payload == PAYLOAD and ended.attempt == 1, ended
    assert ended.finished_at is not None and ended.finished_at > ended.created_at, ended
    assert isinstance(ended.attempts, list) and ended.attempts[0].number == 1, ended
    assert submit(client, key).id == task.id
    assert find_in_list(client, ended).finished_at == ended.finished_at
    explanation = expect(Explanation, explain_task.sync(task.id, client=client))
    assert explanation.code is ExplainCode.SUCCEEDED, explanation
    replayed = expect(Task, replay_task.sync(task.id, client=client, body=Replay(new_key=True)))
    assert replayed.generation == 2, replayed


def check_optional_body(client: AuthenticatedClient) -> None:
    assert RotateSecret().to_dict() == {}
    secrets = expect(CallbackSecrets, rotate_callback_secret.sync(client=client, body=RotateSecret(grace_period=0)))
    assert isinstance(secrets.secret, str) and len(secrets.secrets) == 1, secrets


def check_problems(client: AuthenticatedClient, url: str) -> None:
    response = submit_task.sync_detailed(client=client, body=Submission(kind="unknown"))
    problem = expect(Problem, response.parsed)
    assert (response.status_code, problem.code) == (422, ProblemCode.UNKNOWN_KIND), problem
    assert isinstance(problem.errors, list) and problem.errors[0].pointer == "/kind", problem
    missing = expect(Problem, get_task.sync("task_00000000000000000000000000", client=client))
    assert (missing.status, missing.code) == (404, ProblemCode.TASK_NOT_FOUND), missing
    invalid = AuthenticatedClient(base_url=url, token="nb_live_invalid")
    refused = expect(Problem, list_tasks.sync(client=invalid))
    assert refused.code is ProblemCode.UNAUTHORIZED, refused


def main() -> None:
    url = os.environ["NOBAT_URL"]
    print(f"imported {import_all_modules()} modules")
    # The server holds a response for up to 10 seconds (`wait`). The client's default timeout is 5.
    client = AuthenticatedClient(base_url=url, token=os.environ["NOBAT_KEY"], timeout=Timeout(20), raise_on_unexpected_status=True)
    check_task(client)
    check_optional_body(client)
    check_problems(client, url)
    assert expect(OpenapiResponse200, openapi.sync(client=client))["openapi"] == "3.1.0"
    print("the Python client works")


main()
