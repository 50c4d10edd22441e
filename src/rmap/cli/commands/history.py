"""The published figures of reverse maps, and ours beside them.

Twenty-eight sources, from the merge of the first reverse map in 2002 to
proposals of 2026 (J1 to J28; docs/history.md). Where a source gives counts or
bytes, or measured two designs side by side, the workload that stands for it is
run in the model under the same designs, and ours is shown beside: the ratio
then and now, and whether the direction agrees. The others say why not.

examples
  rmap history
  rmap history J13 J18
  rmap history --json
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from rmap.cli import status
from rmap.cli.output import emit, waiting
from rmap.cli.parser import add_output_options


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    parser.add_argument("ids", metavar="J", nargs="*", help="only these sources: J1 to J28")
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Run, compare, tell; status 1 if a value is missed or a direction disagrees."""
    from rmap.lab.history import history
    from rmap.show.history import history_screen

    with waiting() as doing:
        rows = history([id.upper() for id in args.ids], say=doing)
    emit(args, {"history": rows}, lambda: history_screen(rows))
    wrong = [a for row in rows for a in row.answers if a.verdict in ("missed", "disagrees")]
    return status.NO if wrong else status.OK
