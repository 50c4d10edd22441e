"""shell-storm: a build or a test suite: one shell starts many short commands, all over the same libraries.

Each command is a fork of the shell, which writes two pages and goes (that is what exec does to the copy), then a fresh
program that maps the libraries, reads most of their text, writes their data, and exits after a while. Library
pages are mapped by everything that runs. The order of exits matters to chains: who adds last is found first.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from rmap.kernel import Kernel, OpenFile, Process
from rmap.lab.workloads.base import (
    MAX_FRAMES,
    MAX_PROCESSES,
    Parameter,
    Sample,
    Size,
    Steps,
    Workload,
    tables_for,
)
from rmap.units import PAGE_SIZE

MAX_LIBRARIES = 1000
HEAP_PAGES = 64
STACK_PAGES = 8
DATA_PAGES = 4


class Program(NamedTuple):
    """A running program.

    Attributes:
        process: it.
        heap, stack: addresses in bytes.
        texts: where each library's text is mapped.
    """

    process: Process
    heap: int
    stack: int
    texts: list[int]


def _exec(kernel: Kernel, libraries: list[OpenFile], pages: int) -> Program:
    # A fresh program: its libraries mapped, text read and data written; a heap and a stack.
    process = kernel.spawn()
    texts = []
    for library in libraries:
        text = process.mmap(pages * PAGE_SIZE, "rx", file=library)
        process.read(text, pages * PAGE_SIZE)
        data = process.mmap(DATA_PAGES * PAGE_SIZE, "rw", file=library, offset=pages * PAGE_SIZE)
        process.write(data, DATA_PAGES * PAGE_SIZE)
        texts.append(text)
    heap = process.mmap(HEAP_PAGES * PAGE_SIZE)
    process.write(heap, HEAP_PAGES * PAGE_SIZE)
    stack = process.mmap(STACK_PAGES * PAGE_SIZE, growsdown=True)
    process.write(stack, STACK_PAGES * PAGE_SIZE)
    return Program(process, heap, stack, texts)


def shell_storm(
    kernel: Kernel,
    *,
    commands: int = 500,
    alive: int = 40,
    libraries: int = 8,
    pages: int = 128,
    lifo: float = 0.0,
    seed: int = 1,
) -> Steps:
    """``commands`` commands, ``alive`` at a time; ``lifo`` of the exits take the youngest, the others the oldest."""
    rng = np.random.default_rng(seed)
    yield f"{libraries:,} libraries of {pages:,} pages are read in; the shell starts"
    files = [kernel.open(f"/lib/lib{i}.so", (pages + DATA_PAGES) * PAGE_SIZE) for i in range(libraries)]
    for file in files:
        file.read_in()
    shell = _exec(kernel, files, pages)
    running: deque[Program] = deque()
    for number in range(1, commands + 1):
        if number % 100 == 1:
            yield f"command {number:,} of {commands:,}"
        forked = shell.process.fork()
        forked.write(shell.stack, PAGE_SIZE)
        forked.write(shell.heap, PAGE_SIZE)
        forked.exit()
        running.append(_exec(kernel, files, pages))
        if len(running) > alive:
            leaving = running.pop() if rng.random() < lifo else running.popleft()
            leaving.process.exit()
    text = tuple((shell.process, start, pages) for start in shell.texts)
    return (Sample("a page of a library", text), Sample("a page of a heap", ((shell.process, shell.heap, HEAP_PAGES),)))


def size(commands: int, alive: int, libraries: int, pages: int, lifo: float) -> Size:
    """What it needs."""
    programs = min(alive, commands) + 3
    text, own = libraries * (pages + DATA_PAGES), libraries * DATA_PAGES + HEAP_PAGES + STACK_PAGES
    per_program = text + HEAP_PAGES + STACK_PAGES
    return Size(
        # The last term: a read of a file makes room for as much readahead, whether it then happens or not.
        frames=text + programs * own + 2 * pages,
        ptes=programs * per_program,
        tables=programs * (tables_for(per_program) + 2),
        vmas=programs * (2 * libraries + 2),
    )


WORKLOAD = Workload(
    "shell-storm",
    "A shell starts many short-lived commands, all over the same libraries.",
    (
        Parameter("commands", 500, "count", "commands the shell starts", 1, 100 * MAX_PROCESSES),
        Parameter("alive", 40, "count", "commands that run at the same time", 1, MAX_PROCESSES),
        Parameter("libraries", 8, "count", "libraries of each command", 1, MAX_LIBRARIES),
        Parameter("pages", 128, "count", "pages of text in each library", 1, MAX_FRAMES),
        Parameter("lifo", 0.0, "share", "of the exits, that take the youngest command; the others take the oldest"),
    ),
    shell_storm,
    size,
    shows=("fault", "fork", "exit"),
)
