"""Real processes for the live tests: a small interpreter that sets up memory, forks, and holds still.

The script runs in a fresh, isolated interpreter. It may use ``mm`` (an anonymous private mapping by ``mmap.mmap``),
``address(buffer)``, ``fork(work)``, ``share_mm()`` and must end with ``ready(value)``, which sends ``value`` as JSON
and waits.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PRELUDE = """
import ctypes, json, mmap, os, signal, sys
PAGE = mmap.PAGESIZE
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
children, kept = [], []

def mm(pages, flags=PRIVATE, fd=-1, offset=0, prot=3):
    return mmap.mmap(fd, pages * PAGE, flags, prot, offset=offset)

def address(buffer):
    return ctypes.addressof((ctypes.c_char * 1).from_buffer(buffer))

def touch(buffer, *pages):
    for page in pages:
        buffer[page * PAGE] = 1

def fork(work):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)
        work()
        os.write(writer, b"x")
        signal.pause()
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    children.append(pid)
    return pid

def share_mm():
    # a child in this very address space (CLONE_VM), asleep
    stack = ctypes.create_string_buffer(1 << 16)
    seconds = (ctypes.c_long * 2)(3600, 0)
    kept.extend((stack, seconds))
    top = ctypes.c_void_p((ctypes.addressof(stack) + (1 << 16)) & ~15)
    libc.clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    nanosleep = ctypes.cast(libc.nanosleep, ctypes.c_void_p)
    pid = libc.clone(nanosleep, top, 0x100 | signal.SIGCHLD, ctypes.cast(seconds, ctypes.c_void_p))
    assert pid > 0
    children.append(pid)

def ready(value):
    print(json.dumps({"pid": os.getpid(), "children": children, "value": value}), flush=True)
    sys.stdin.read()
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    os._exit(0)
"""


class Family:
    """Pids and what the script sent."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.pid: int = told["pid"]
        self.children: list[int] = told["children"]
        self.value: Any = told["value"]

    @property
    def pids(self) -> list[int]:
        """All of them."""
        return [self.pid, *self.children]


@contextmanager
def family(script: str) -> Iterator[Family]:
    """Run a script, and end it and its children afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", PRELUDE + script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, "the script failed"
        yield Family(json.loads(line))
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(timeout=20)
