"""The workloads and their parameters, and the recorded programs that ship."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from rmap.show.text import wrap

if TYPE_CHECKING:
    from rmap.lab.workloads import Parameter, Workload

NAME_WIDTH = 20
OPTION_WIDTH = 24


def workloads(catalogue: Iterable[Workload], traces: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """The lines of ``rmap workloads``: each workload, and its options with their defaults; then recorded programs.

    Args:
        traces: name and summary of each.
    """
    lines: list[str] = []
    for workload in catalogue:
        lines += wrap(workload.summary, f"{workload.name:<{NAME_WIDTH}} ")
        for parameter in workload.parameters:
            option = f"  {option_of(parameter)} {default_of(parameter)}"
            lines += wrap(parameter.help, f"{option:<{OPTION_WIDTH}} ")
    for name, summary in traces.items():
        lines += wrap(f"Recorded: {summary}", f"{name:<{NAME_WIDTH}} ")
    return lines


def option_of(parameter: Parameter) -> str:
    """How a parameter is given on the command line: ``--children``."""
    return f"--{parameter.name.replace('_', '-')}"


def default_of(parameter: Parameter) -> str:
    """A parameter's default as it would be typed: ``65536``, ``10%``."""
    return f"{parameter.default * 100:g}%" if parameter.kind == "share" else str(parameter.default)
