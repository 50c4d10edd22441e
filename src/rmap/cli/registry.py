"""Every command: its name, the module it lives in, and its line in ``rmap --help``.

Reading this module imports none of them, so that ``rmap --help`` answers at once. Each module offers a docstring that
is its help text, ``configure(parser, words)`` and ``run(args) -> int``; a test holds the lines below against the
docstrings.
"""

from __future__ import annotations

from rmap.errors import UsageError
from rmap.lazy import module_named

TYPE_CHECKING = False  # typing's own constant; importing typing costs a fifth of `rmap --help`
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import Any, Protocol

    class Command(Protocol):
        """What a command module offers."""

        __doc__: str | None

        def configure(self, parser: ArgumentParser, words: list[str]) -> None:
            """Add the arguments. ``words`` are those the user typed, for options that depend on them."""

        def run(self, args: Namespace) -> int:
            """Do it; the exit status."""


LAB = "In the model (no privileges needed)"
SELF = "About the command itself"
LIVE = "On the running machine (most of them as root), or with -i on a recorded one"

COMMANDS = {
    "demo": (LAB, "A real machine's memory under every design: right? costs? evict."),
    "compare": (LAB, "What each design costs for a workload or a recorded machine."),
    "workloads": (LAB, "The workloads that compare knows, and their parameters."),
    "history": (LAB, "The published figures of reverse maps, and ours beside them."),
    "worst": (LAB, "Search for the calls that are worst for a design."),
    "calibrate": (LAB, "Measure what a visit costs on this machine's kernel."),
    "replay": (LAB, "Play a recorded program again in the model, under any reverse map."),
    "verify": (LAB, "Hold the model against a recorded program: does it do the same?"),
    "explain": (LAB, "A small story, step by step; or a page of this machine, drawn."),
    "who": (LIVE, "Every page-table entry that maps a page, an address, a file's page."),
    "ps": (LIVE, "What each process has in memory, and with how many it shares it."),
    "share": (LIVE, "Who shares memory with whom: a matrix."),
    "group": (LIVE, "Memory of process trees, cgroups, programs, users: each frame once."),
    "freed": (LIVE, "What comes back if processes end, and what stays."),
    "watch": (LIVE, "How the shared memory of a forked family becomes private."),
    "file": (LIVE, "Which parts of a file are in memory, and who maps them."),
    "files": (LIVE, "Which files fill the page cache, mapped or only open."),
    "badframe": (LIVE, "Whom a bad page frame hits, and what the kernel can do."),
    "evict": (LIVE, "Take a page or a file out of every address space, and verify it."),
    "diff": (LIVE, "What changed between two pictures: gained, lost, unshared."),
    "sql": (LIVE, "Ask a picture in SQL."),
    "record": (LIVE, "Run a program and record every event that changes its memory."),
    "snap": (LIVE, "Record the running machine's memory as a picture, in one file."),
    "check": (LIVE, "Hold the machine against the numbered rules of its reverse map."),
    "conform": (LIVE, "Hold the model against the kernel: the same random calls by both."),
    "doctor": (LIVE, "What rmap can see of this machine, what it cannot, and why."),
    "completion": (SELF, "Print the completion script of a shell, or the man page."),
}
"""Group and summary of every command, in the order of ``rmap --help``."""


def load(verb: str) -> Command:
    """Import the module of a command.

    Raises:
        UsageError: there is no such command; names the nearest.
    """
    if verb not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(verb, COMMANDS, n=1)
        hint = f"; did you mean `rmap {near[0]}`?" if near else ""
        raise UsageError(f"no command {verb!r}{hint} (`rmap --help` lists them)")
    command: Any = module_named(f"rmap.cli.commands.{verb}")
    return command
