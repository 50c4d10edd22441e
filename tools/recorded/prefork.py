"""What record_traces.py records as prefork: an HTTP server forks its workers, which answer requests over loopback.

The server loads its records, listens, and forks; a client, forked too, asks, while workers count requests in what they
inherited, keep some answers, and map and unmap memory for others. Then all rest for a second, so that a picture finds
everything in place.
"""

from __future__ import annotations

import http.client
import json
import mmap
import os
import signal
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

WORKERS = 6
REQUESTS = 150
RECORDS = 4000
REST_SECONDS = 1.0

RECORDS_BY_ID = {i: {"id": i, "name": f"record {i}", "asked": 0} for i in range(RECORDS)}
KEPT: list[bytes] = []


class Handler(BaseHTTPRequestHandler):
    """Answers ``/N`` with a record."""

    def do_GET(self) -> None:
        """One request: count it, keep every fourth answer, use a scratch mapping for the others."""
        record = RECORDS_BY_ID[int(self.path[1:]) % RECORDS]
        record["asked"] = int(record["asked"]) + 1
        body = json.dumps([record] * 50).encode()
        if int(record["id"]) % 4 == 0:
            KEPT.append(body)
        else:
            with mmap.mmap(-1, 256 << 10, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as scratch:
                scratch.write(body)
                body = scratch[: len(body)]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Listener(HTTPServer):
    """A server on a socket that exists already."""

    def __init__(self, listening: socket.socket) -> None:
        super().__init__(listening.getsockname(), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening


def work(listening: socket.socket) -> None:
    """A worker: serve until told to end."""
    Listener(listening).serve_forever()


def ask(port: int) -> None:
    """The client: all requests, one after the other."""
    for number in range(REQUESTS):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", f"/{number * 37}")
        if connection.getresponse().read()[:1] != b"[":
            sys.exit(1)
        connection.close()


def child(job: object, argument: object) -> int:
    """Fork; the child does a job and exits."""
    pid = os.fork()
    if pid:
        return pid
    assert callable(job)
    job(argument)
    os._exit(0)


def main() -> None:
    """Fork the workers and the client, rest, end the workers."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)
    workers = [child(work, listening) for _ in range(WORKERS)]
    client = child(ask, listening.getsockname()[1])
    _, status = os.waitpid(client, 0)
    time.sleep(REST_SECONDS)
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    for pid in workers:
        os.waitpid(pid, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
