"""Reads one request per line, and prints for each `true` if the official library accepts its signature, otherwise `false`."""

import json
import sys

from standardwebhooks import Webhook, WebhookVerificationError

for line in sys.stdin:
    request = json.loads(line)
    try:
        Webhook(request["secret"]).verify(request["body"].encode(), request["headers"], json_parse=False)
        print("true")
    except WebhookVerificationError:
        print("false")
