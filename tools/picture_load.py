"""The load that ``record_picture.py`` takes a picture of: a prefork HTTP server, and shells with pipelines.

Prints the word ``ready`` when everything is up and has served, then waits until its standard input is closed, and ends
all it started. Run by ``record_picture.py``; of no use by itself.
"""

from __future__ import annotations

import contextlib
import gc
import http.client
import json
import mmap
import os
import random
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
from http.server import BaseHTTPRequestHandler
from pathlib import Path

WORKERS = 24
SHELLS = 3
HEAP = 64 << 20  # bytes of records the server loads before it forks
MODEL = 4 << 20  # bytes of a file that every worker maps
PIECE = 64 * mmap.PAGESIZE  # what one record update rewrites
PIECES_PER_REQUEST = 6
REQUESTS = 9  # that every worker is to serve
MADV_POPULATE_WRITE = 23
PIPELINE = "sleep 3600 | cat | wc -l"


class Server:
    """One listening socket, one loaded heap; workers are forked from it and share both."""

    def __init__(self, model: Path) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.socket.getsockname()[1]
        self.heap = mmap.mmap(-1, HEAP, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # Populated at once, the frames come in runs: a picture of them stays small.
        self.heap.madvise(MADV_POPULATE_WRITE, 0, HEAP)
        record = json.dumps({"name": "a record", "value": list(range(64))}).encode()
        for start in range(0, HEAP, mmap.PAGESIZE):
            self.heap[start : start + len(record)] = record
        self.scores = mmap.mmap(-1, WORKERS * mmap.PAGESIZE)
        self.database = sqlite3.connect(":memory:")
        self.tls = ssl.create_default_context()
        with model.open("rb") as file:
            self.model = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
        self.served = 0

    def work(self, number: int) -> None:
        """Be worker ``number``: serve for ever."""
        choose = random.Random(number)
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                for _ in range(PIECES_PER_REQUEST):
                    server.rewrite(choose.randrange(HEAP // PIECE) * PIECE)
                total = sum(server.model[:: mmap.PAGESIZE])
                server.served += 1
                server.scores[number * mmap.PAGESIZE] = server.served % 256
                body = json.dumps({"pid": os.getpid(), "served": server.served, "total": total}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        while True:
            connection, address = self.socket.accept()
            with connection:
                Handler(connection, address, None)  # type: ignore[arg-type]

    def rewrite(self, start: int) -> None:
        """Rewrite one piece of the heap: every page of it is copied on write."""
        self.heap.madvise(MADV_POPULATE_WRITE, start, PIECE)
        for page in range(start, start + PIECE, mmap.PAGESIZE):
            self.heap[page] = self.heap[page] ^ 1


def serve(model: Path, port_pipe: int) -> None:
    """Be the server's parent process: load, fork the workers, wait for the end."""
    server = Server(model)
    gc.freeze()
    for number in range(WORKERS):
        if os.fork() == 0:
            try:
                server.work(number)
            finally:
                os._exit(1)
    os.write(port_pipe, str(server.port).encode())
    os.close(port_pipe)
    signal.pause()


def ask(port: int) -> int:
    """Send one request.

    Returns:
        the pid of the worker that answered.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/")
        return int(json.loads(connection.getresponse().read())["pid"])
    finally:
        connection.close()


def keep_busy(port: int) -> None:
    """Send requests, one after the other, until every worker has served its share."""
    served: dict[int, int] = {}
    for _ in range(WORKERS * REQUESTS * 20):
        pid = ask(port)
        served[pid] = served.get(pid, 0) + 1
        if len(served) == WORKERS and min(served.values()) >= REQUESTS:
            return
    raise SystemExit(f"the requests were not spread over {WORKERS} workers: {sorted(served.values())}")


def main() -> None:
    """Start everything, say so, wait, end everything."""
    started: list[int] = []
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / "model.bin"
        model.write_bytes(bytes(range(256)) * (MODEL // 256))
        reader, writer = os.pipe()
        try:
            pid = os.fork()
            if pid == 0:
                os.setpgid(0, 0)
                try:
                    serve(model, writer)
                finally:
                    os._exit(1)
            os.close(writer)
            started.append(pid)
            # One group per pipeline, so that all of it can be ended.
            started += [
                subprocess.Popen(["sh", "-c", PIPELINE + "; :"], process_group=0, stdin=subprocess.DEVNULL).pid
                for _ in range(SHELLS)
            ]
            keep_busy(int(os.read(reader, 32)))
            print("ready", flush=True)
            sys.stdin.read()
        finally:
            for group in started:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
            for group in started:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(group, 0)


if __name__ == "__main__":
    main()
