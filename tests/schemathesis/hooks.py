"""Facts about nobat that the schema cannot express: known kinds, blocked addresses, and rules between fields."""

import random
import re

import schemathesis
from schemathesis.generation import GenerationMode

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
EXTENSION = re.compile(r"[a-z0-9]{1,64}")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
URL = re.compile(r"https?://[A-Za-z0-9.-]+(:\d+)?(/[!-~]*)?")

# Fields that can be refused although the request matches the schema, with the reason.
BEYOND_THE_SCHEMA = [
    r"/run_at",  # set together with `delay`, or more than 366 days ahead
    r"/expires_at",  # in the past, or before the task may start
    r"/timeout",  # longer than this server allows
    r"/payload(/.*)?",  # checked by the kind
    r"/callback/url",  # a blocked address
    r"/labels/.*",  # more bytes than characters, or invisible ones
    r"(/callback)?/retry/delays",  # set together with fields that exclude it
    r"/ca_certificates",  # not certificates in PEM
    r"/path",  # leads outside the endpoint
    r"/endpoint",  # the kind takes no endpoint
    r"/url",  # a blocked address, or a URL to which no path can be appended
    r"/headers(/.*)?",  # a reserved header, or more bytes than nobat sends
    r"/(success|retry)_statuses/\d+",  # not a range of statuses
    r"(/limits)?/rate",  # missing, with a period or a burst
    r"/label",  # more bytes than characters, or invisible ones
    r"/networks/\d+",  # not a network, or all addresses
    r"/(cron|timezone|at|every)",  # not an expression or a zone, no time in the future, or not exactly one of them
    r"/topic",  # a wildcard inside a word, a space, or more bytes than characters
    r"/filter(/.*)?",  # not a filter, or one that matches no event
    r"/task(/.*)?",  # a template, which has the rules of a task
    r"/verify(/.*)?",  # not exactly one proof, secrets that do not fit it, or signed content that does not cover the body
    r"/event(/.*)?",  # set together with `task`
    r"/event_id",  # not a place
    r"/body",  # set without `task`
    r"/respond(/.*)?",  # more bytes than characters
    r"/(specversion|id|source|type|subject|time|datacontenttype|dataschema|data|data_base64)",  # other rules in each format
]
FIELD = re.compile(r"(/tasks/\d+|/\d+)?(" + "|".join(BEYOND_THE_SCHEMA) + ")", re.DOTALL)
CODES = {"idempotency_key_reused", "invalid_cursor", "unknown_kind", "unknown_endpoint", "blocked_address"}


@schemathesis.hook
def before_call(ctx, case, kwargs):
    """Gives most submissions a known kind, so that the rest of the request decides whether it is accepted.

    Each request has another client address, because nobat blocks an address for a while after several invalid keys.
    """
    origin = ".".join(str(random.randrange(1, 255)) for _ in range(3))
    case.headers = {**(case.headers or {}), "X-Forwarded-For": f"10.{origin}"}
    if case.path in ("/v1/events", "/v1/subscriptions/{name}/test"):
        for event in case.body if isinstance(case.body, list) else [case.body]:
            if isinstance(event, dict):
                prepare_event(event)
    if not isinstance(case.body, dict):
        return
    tasks = case.body.get("tasks", [case.body])
    is_as_described = case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE
    for task in tasks if isinstance(tasks, list) else []:
        if isinstance(task, dict):
            prepare(task, is_as_described)


def prepare_event(event):
    """Removes extension attributes that nobat refuses. The schema cannot restrict their names."""
    for name in [name for name in event if name != "data_base64" and not EXTENSION.fullmatch(name)]:
        event.pop(name)
    for name, value in event.items():
        if name != "data_base64" and isinstance(value, str):
            event[name] = CONTROL.sub("", value)
        elif isinstance(value, float) or (isinstance(value, int) and abs(value) >= 2**31):
            event[name] = 0


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
    # nobat runs the accepted tasks, and must call no foreign server. The top-level domain `invalid` does not exist (RFC 6761).
    for holder in (task, task.get("callback"), task.get("payload")):
        if isinstance(holder, dict) and isinstance(holder.get("url"), str) and URL.fullmatch(holder["url"]):
            holder["url"] = "https://nobat.invalid/"


@schemathesis.check
def refusals_are_beyond_the_schema(ctx, response, case):
    is_as_described = case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE
    if not is_as_described or response.status_code not in (400, 422):
        return
    try:
        problem = response.json()
    except ValueError:
        # The HTTP server itself refused the request. Another check decides whether it may.
        return
    if problem["code"] in CODES:
        return
    errors = problem.get("errors", [])
    assert errors, f"the schema does not describe {problem['code']}: {problem['detail']}"
    for error in errors:
        # The number of events in a batch, their size, the choice of the planned times, and of `task` or `event`.
        if not error["pointer"] and case.path in ("/v1/events", "/v1/schedules/{name}", "/v1/sources/{name}"):
            continue
        is_unknown_kind = error["pointer"].endswith("/kind") and "known kinds are" in error["detail"]
        assert is_unknown_kind or FIELD.fullmatch(error["pointer"]), f"the schema does not describe {error['pointer']}: {error['detail']}"
