"""What rmap can see of this machine, what it cannot, and why.

Lists every ability of the running kernel and of this user that rmap makes use
of: which commands need it, what is missing, what would help. Then what kind of
machine this is: rights, namespaces, kernel options, cgroups, swap, KSM; and
which processes refuse to be read. Reads, and changes nothing.

examples
  rmap doctor
  sudo rmap doctor --json
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from rmap.cli import status
from rmap.cli.output import emit
from rmap.cli.parser import add_output_options


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    add_output_options(parser)


def run(args: Namespace) -> int:
    """Ask for every ability."""
    from rmap.live.doctor.abilities import abilities, refused_processes
    from rmap.live.doctor.machine import machine
    from rmap.live.record import why_not
    from rmap.show.doctor import doctor

    reasons = {**asdict(abilities()), "recording": why_not()}
    release = os.uname().release
    refused = sorted(refused_processes())
    here = machine()
    facts = {"release": release, "abilities": reasons, "refused": refused, "machine": here}
    emit(args, facts, lambda: doctor(reasons, release=release, refused=refused, machine=here))
    return status.OK
