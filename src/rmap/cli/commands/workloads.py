"""The workloads that compare knows, and their parameters.

A workload is a program of system calls that the model kernel runs: the same
calls under every design. Each is aimed at what one design does well and
another badly.

examples
  rmap workloads
  rmap compare zygote --children 50
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from rmap.cli import status
from rmap.cli.commands.compare import shown_default
from rmap.cli.output import emit
from rmap.cli.parser import add_output_options


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    add_output_options(parser)


def run(args: Namespace) -> int:
    """List them."""
    from rmap.lab.workloads import WORKLOADS
    from rmap.show.workloads import ParameterLine, WorkloadLines, workloads

    known = [
        WorkloadLines(
            workload.name,
            workload.summary,
            tuple(
                ParameterLine(p.name.replace("_", "-"), shown_default(p.kind, p.default), p.help)
                for p in workload.parameters
            ),
        )
        for workload in WORKLOADS.values()
    ]
    emit(args, {"workloads": known}, lambda: workloads(known))
    return status.OK
