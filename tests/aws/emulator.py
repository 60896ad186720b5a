"""Runs the emulator of AWS on a free port of this machine, until standard input ends.

It ends when whoever started this is gone, however that came about: the other end of the pipe is closed by the system.
The one argument is a folder for what the emulator unpacks. Once it answers, its port is written to standard output.
"""

import asyncio
import os
import shutil
import signal
import socket
import socketserver
import sys
import tempfile
import threading

# Seconds. It takes less than one where nothing else is going on.
PATIENCE = 60


def main(folder):
    # A group of its own, so that the functions that the emulator starts can be ended along with it.
    os.setpgid(0, 0)
    signal.alarm(PATIENCE)
    home = tempfile.mkdtemp(dir=folder)
    threading.Thread(target=end_with_standard_input, args=[home], daemon=True).start()
    # Opened here and handed on: a port that is free now may be taken before somebody else gets to open it.
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = listener.getsockname()[1]
    prepare(home, port)
    try:
        asyncio.run(serve(listener, port))
    finally:
        shutil.rmtree(home, ignore_errors=True)


def end_with_standard_input(home):
    while os.read(sys.stdin.fileno(), 1024):
        pass
    shutil.rmtree(home, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


def prepare(home, port):
    """Sets what the emulator reads when it is imported, and what the functions inherit from it."""
    tempfile.tempdir = home
    os.environ.update(
        GATEWAY_PORT=str(port), AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}", IOT_MTLS_ENABLED="0", SFTP_ENABLED="0"
    )
    # The runtime API writes heads and bodies apart. With Nagle's algorithm each warm invocation waits 50 ms for that.
    socketserver.StreamRequestHandler.disable_nagle_algorithm = True


def correct_permissions():
    """SQS has no permissions of their own for batches: who may send a message may send ten at once.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_AddPermission.html
    """
    from ministack.core import iam_actions

    asked = iam_actions.extract_iam_action

    def action(service, *arguments, **options):
        found = asked(service, *arguments, **options)
        return found.removesuffix("Batch") if service == "sqs" and found else found

    iam_actions.extract_iam_action = action


async def serve(listener, port):
    import hypercorn.asyncio
    from hypercorn.config import Config
    from ministack.app import app

    correct_permissions()

    async def announcing(scope, receive, send):
        async def sent(message):
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                announce(port)

        await app(scope, receive, sent if scope["type"] == "lifespan" else send)

    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    # Longer than the AWS SDK keeps a connection that nobody uses.
    config.keep_alive_timeout = 75
    await hypercorn.asyncio.serve(announcing, config)


def announce(port):
    signal.alarm(0)
    print(port, flush=True)
    # Nobody reads standard output after this line: what else is written there belongs in the log.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


main(sys.argv[1])
