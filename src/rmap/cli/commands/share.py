"""Who shares memory with whom: a matrix.

For each of the processes, how much it maps, how much of that no other process
of the machine maps, and how much it has in common with each of the others:
distinct frames, in any way (forked memory, files, shared memory, KSM). With one
process, or with --with-all, everybody who shares with it is listed.

examples
  sudo rmap share 4711 4712 4713
  sudo rmap share 4711 --tree
  sudo rmap share 4711 --with-all --top 30
  rmap share -i here.rmap 4711 4712 --json
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from rmap.cli import status
from rmap.cli.output import emit
from rmap.cli.parser import add_output_options, add_reading_options, row_limit
from rmap.cli.source import snapshot_of

MATRIX = 5
"""More columns than this do not fit: then pairs are listed."""


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("pids", metavar="PID", type=int, nargs="+", help="these processes")
    parser.add_argument("--tree", action="store_true", help="and all that they forked")
    parser.add_argument("--with-all", action="store_true", help="with everybody, not only with each other")
    parser.add_argument("--top", metavar="N", type=row_limit, default=20, help="at most N pairs (default: 20)")
    parser.add_argument("--all", dest="top", action="store_const", const=None, help="every pair")
    add_reading_options(parser)
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Find who shares, and how much."""
    import numpy as np

    from rmap.show.share import share, shared_data
    from rmap.snapshot.questions.selection import of_pids, with_descendants
    from rmap.snapshot.questions.sharing import sharing

    snapshot = snapshot_of(args)
    chosen = of_pids(snapshot, args.pids)
    if args.tree:
        chosen = with_descendants(snapshot, chosen)
    rows = np.flatnonzero(chosen).astype(np.int32)
    shares = sharing(snapshot, rows)
    if len(rows) > 1 and not args.with_all:
        shares = shares.among(rows)
    names = [(int(pid), comm) for pid, comm in zip(snapshot.processes.pid, snapshot.processes.comm)]
    emit(args, shared_data(shares, names), lambda: share(shares, names, matrix=MATRIX, limit=args.top))
    return status.OK
