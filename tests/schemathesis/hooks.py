"""What Schemathesis cannot know of nobat: which kinds there are, where no task may go, and what no schema can say."""

import random
import re

import schemathesis
from schemathesis.generation import GenerationMode

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
URL = re.compile(r"https?://[A-Za-z0-9.-]+(:\d+)?(/[!-~]*)?")

# Fields that can be wrong in what is as the schema says, and why.
BEYOND_THE_SCHEMA = [
    r"/run_at",  # beside `delay`, or more than 366 days ahead
    r"/expires_at",  # over, or before it may start
    r"/timeout",  # longer than this server grants
    r"/payload(/.*)?",  # its kind's own business
    r"/callback/url",  # where nobat does not go
    r"/labels/.*",  # more bytes than characters, or invisible ones
    r"(/callback)?/retry/delays",  # beside the fields that it excludes
    r"/ca",  # not certificates
    r"/path",  # one that leads away from the endpoint
    r"/endpoint",  # for a kind whose tasks go to none
    r"/url",  # where nobat does not go, or what no path can be put behind
    r"/headers(/.*)?",  # what nobody may set, or more bytes than are sent
    r"/(success|retry_on)/\d+",  # not a range of statuses
    r"(/flow)?/rate",  # not there, but its period or its burst
    r"/label",  # more bytes than characters, or invisible ones
    r"/networks/\d+",  # not a network, or everybody
]
FIELD = re.compile(r"(/tasks/\d+)?(" + "|".join(BEYOND_THE_SCHEMA) + ")", re.DOTALL)
CODES = {"idempotency_key_reused", "invalid_cursor", "unknown_kind", "unknown_endpoint", "blocked_address"}


@schemathesis.hook
def before_call(ctx, case, kwargs):
    """Makes of most submissions tasks that are run here, so that what else is wrong with them, or right, is what decides.

    Each request comes from somewhere else: whoever comes without a good key again and again is not listened to for a while.
    """
    origin = ".".join(str(random.randrange(1, 255)) for _ in range(3))
    case.headers = {**(case.headers or {}), "X-Forwarded-For": f"10.{origin}"}
    if not isinstance(case.body, dict):
        return
    tasks = case.body.get("tasks", [case.body])
    is_as_described = case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE
    for task in tasks if isinstance(tasks, list) else []:
        if isinstance(task, dict):
            prepare(task, is_as_described)


def prepare(task, is_as_described):
    kind = task.get("kind")
    if isinstance(kind, str) and NAME.fullmatch(kind) and kind not in ("http", "noop"):
        task["kind"] = "noop"
        if len(kind) % 4 or not is_as_described:
            task.pop("payload", None)
    if is_as_described and isinstance(kind, str) and len(kind) % 2:
        if task.get("delay") is not None:
            task.pop("run_at", None)
        if isinstance(task.get("retry"), dict) and len(task["retry"]) > 1:
            task["retry"].pop("delays", None)
    # Whatever is taken is done: nobody outside is called for it. The top-level domain is one that does not exist (RFC 6761).
    for holder in (task, task.get("callback"), task.get("payload")):
        if isinstance(holder, dict) and isinstance(holder.get("url"), str) and URL.fullmatch(holder["url"]):
            holder["url"] = "https://nobat.invalid/"


@schemathesis.check
def refuses_only_what_no_schema_can_say(ctx, response, case):
    is_as_described = case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE
    if not is_as_described or response.status_code not in (400, 422):
        return
    try:
        problem = response.json()
    except ValueError:
        # Of what no handler ever saw, nothing more is said; whether that may be, another check knows.
        return
    if problem["code"] in CODES:
        return
    errors = problem.get("errors", [])
    assert errors, f"the schema says nothing of {problem['code']}: {problem['detail']}"
    for error in errors:
        known_only_here = error["pointer"].endswith("/kind") and error["detail"].startswith("nobody here runs")
        assert known_only_here or FIELD.fullmatch(error["pointer"]), f"the schema does not say of {error['pointer']}: {error['detail']}"
