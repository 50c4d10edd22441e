"""A real machine's memory under every design: right? costs? evict.

Takes a recorded picture of a real machine (without SNAP: the one that ships
with rmap, a forking web server and shells), loads it into the model kernel
once per reverse-map design, and answers three questions:

  1. Does each design find every page-table entry of every mapped page?
     The oracle, a brute-force read of all page tables, says which those are.
  2. What does each cost: memory, and work per fault, fork, unmap and walk?
  3. Can each evict: a tenth of the pages, through its own walk?

Needs no privileges, except with --here.

examples
  rmap demo                    the picture that ships with rmap
  rmap demo here.rmap          a picture of your own (rmap snap -o here.rmap)
  sudo rmap demo --here        this machine, as it is now
"""

from __future__ import annotations

import os
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rmap.cli import status
from rmap.cli.invocation import program
from rmap.cli.output import emit, progress
from rmap.cli.parser import add_designs_option, add_output_options
from rmap.cli.source import capture
from rmap.errors import UsageError


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("snap", metavar="SNAP", nargs="?", help="a recorded picture (default: the shipped one)")
    parser.add_argument("--here", action="store_true", help="take a picture of the running machine first")
    add_designs_option(parser)
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Run the main job."""
    from rmap.lab.compare import demo as first_screen
    from rmap.show.demo import first_screen as shown

    if args.here and args.snap is not None:
        raise UsageError("--here takes its own picture: give it, or SNAP, not both")
    with _snapshot(args.snap, args.here) as path, progress(results=False) as tell:
        result = first_screen.run(path, args.designs, tell)
    emit(args, {"comparison": result.comparison}, lambda: shown(result, program=program(), root=os.geteuid() == 0))
    return status.OK if result.comparison.equal else status.NO


@contextmanager
def _snapshot(snap: str | None, here: bool) -> Iterator[Path]:
    # The file to read; one taken on the spot is gone afterwards.
    from rmap.snapshot import shipped

    if not here:
        yield shipped() if snap is None else Path(snap)
        return
    with tempfile.TemporaryDirectory(prefix="rmap-") as folder:
        path = Path(folder) / "here.rmap"
        capture().save(path)
        yield path
