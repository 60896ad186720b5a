"""Answers every request with a body of one byte a second, until the client disconnects.

It prints its address, and then a line for each call and for each disconnection.
"""

import socket
import threading
import time


def answer(stream):
    received = b""
    while b"\r\n\r\n" not in received:
        received += stream.recv(65536)
    path = received.split(b" ")[1].decode()
    print("called", path, flush=True)
    stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    try:
        while True:
            stream.sendall(b"x")
            time.sleep(1)
    except OSError:
        print("left", path, flush=True)


listener = socket.create_server(("127.0.0.1", 0), backlog=100)
print("127.0.0.1:%d" % listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()
