"""Hold the machine against the numbered rules of its reverse map.

The kernel's reverse map promises that, for example, a page lies in every VMA
where its index says, and that as many entries map a page as its mapcount
counts. docs/rules.md numbers these promises (I1 to I22). Each is checked as far
as the picture carries what it needs; the rest is listed with the reason.

examples
  sudo rmap check
  rmap check -i here.rmap

exit status: 0 if all that could be checked holds, 1 if a promise is broken:
the invariant is named with its objects, ready for a bug report
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from rmap.cli import status
from rmap.cli.output import emit
from rmap.cli.parser import add_input_option, add_output_options
from rmap.cli.source import origin_of, picture_of
from rmap.errors import InvariantError


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    add_input_option(parser)
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Check it."""
    from rmap.show.check import check, violation
    from rmap.show.picture import picture_facts

    picture = picture_of(args)
    facts = picture_facts(picture)
    try:
        rows = picture.check()
    except InvariantError as broken:  # a finding about the machine, not a fault of rmap
        found = {"invariant": broken.id, "message": str(broken.args[1])}
        emit(args, {**facts, "violation": found}, lambda: violation(found["invariant"], found["message"]))
        return status.NO
    data = {**facts, "violation": None, "checked": [row._asdict() for row in rows]}
    emit(args, data, lambda: check(rows, facts, origin=origin_of(args, picture)))
    return status.OK
