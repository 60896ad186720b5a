"""Reads a request a line, and says whether the official library takes it for one that was signed with that secret."""

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
