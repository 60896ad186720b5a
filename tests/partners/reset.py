"""Resets the first connections (RST, not FIN), in three ways in turn, and answers 200 from then on.

The argument is the number of resets. It prints its address, and then a line for each connection.
"""

import itertools
import socket
import struct
import sys

RESETS = int(sys.argv[1])
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n"


def read(stream):
    received = b""
    while b"\r\n\r\n" not in received:
        received += stream.recv(65536)


listener = socket.create_server(("127.0.0.1", 0), backlog=100)
print("127.0.0.1:%d" % listener.getsockname()[1], flush=True)
for number in itertools.count():
    stream, _ = listener.accept()
    if number >= RESETS:
        read(stream)
        stream.sendall(ANSWER + b"ok")
        stream.close()
        print("answered", flush=True)
        continue
    way = ["before the request", "before the answer", "within the answer"][number % 3]
    if way != "before the request":
        read(stream)
    if way == "within the answer":
        stream.sendall(ANSWER + b"o")
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()
    print("reset", way, flush=True)
