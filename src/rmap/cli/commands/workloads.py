"""The workloads that compare knows, and their parameters.

A workload is a program of system calls that the model kernel runs: the same
calls under every design. Each is aimed at what one design does well and
another badly. A recorded program is what a real one did, as rmap record saw it;
rmap compare, rmap replay and rmap verify know those that ship by their names.

examples
  rmap workloads
  rmap compare zygote --children 50
  rmap compare prefork
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from rmap.cli import status
from rmap.cli.output import emit
from rmap.cli.parser import add_output_options


def configure(parser: ArgumentParser, words: list[str]) -> None:
    """Add the arguments."""
    add_output_options(parser)


def run(args: Namespace) -> int:
    """List them."""
    from rmap.lab.replay.shipped import SUMMARIES, shipped_traces
    from rmap.lab.workloads import WORKLOADS
    from rmap.show.workloads import workloads

    catalogue = WORKLOADS.values()
    data = [
        {
            "name": workload.name,
            "summary": workload.summary,
            "parameters": [
                {"name": p.name, "default": p.default, "kind": p.kind, "help": p.help} for p in workload.parameters
            ],
        }
        for workload in catalogue
    ]
    traces = {name: SUMMARIES[name] for name in shipped_traces()}
    recorded = [{"name": name, "summary": summary} for name, summary in traces.items()]
    emit(args, {"workloads": data, "traces": recorded}, lambda: workloads(catalogue, traces))
    return status.OK
