"""Runs the emulator of AWS on a free port of this machine, until standard input ends.

It ends with the process that started it, however that process ends: the system closes the other end of the pipe.
The only argument is a folder for the emulator's temporary files. Once it answers, it prints its port.
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

# Maximum time to start, in seconds. It takes less than one second on an idle machine.
PATIENCE = 60


def main(folder):
    # A new process group, so that the functions that the emulator starts can be killed with it.
    os.setpgid(0, 0)
    signal.alarm(PATIENCE)
    home = tempfile.mkdtemp(dir=folder)
    threading.Thread(target=end_with_standard_input, args=[home], daemon=True).start()
    # Opened here and passed on: a port that is free now may be taken before the server opens it.
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
    """Sets the variables that the emulator reads at its import and that the functions inherit."""
    tempfile.tempdir = home
    os.environ.update(
        GATEWAY_PORT=str(port), AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}", IOT_MTLS_ENABLED="0", SFTP_ENABLED="0"
    )
    # The runtime API writes head and body separately. With Nagle's algorithm each warm invocation would wait 50 ms.
    socketserver.StreamRequestHandler.disable_nagle_algorithm = True


def correct_permissions():
    """Maps batch operations of SQS to the single ones: SQS has no separate permissions for batches.

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
    # Seconds. Longer than the AWS SDK keeps an idle connection.
    config.keep_alive_timeout = 75
    await hypercorn.asyncio.serve(announcing, config)


def announce(port):
    signal.alarm(0)
    print(port, flush=True)
    # The tests stop reading standard output after this line, so later output goes to the log.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


main(sys.argv[1])
