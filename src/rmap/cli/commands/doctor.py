"""What rmap can see of this machine, what it cannot, and why.

Lists every ability of the running kernel and of this user that rmap makes use
of: which commands need it, what is missing, what would help. Reads, and changes
nothing.

examples
  rmap doctor
  sudo rmap doctor --json
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace

from rmap.cli import status
from rmap.cli.output import emit
from rmap.cli.parser import add_output_options


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Ask for every ability."""
    from rmap.live import abilities
    from rmap.show.doctor import doctor

    found = abilities()
    release = os.uname().release
    rows = [{"name": a.name, "serves": a.serves, "missing": a.missing, "remedy": a.remedy} for a in found]
    emit(args, {"release": release, "abilities": rows}, lambda: doctor(found, release=release))
    return status.OK
