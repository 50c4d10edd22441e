"""The workloads and their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rmap.show.text import wrap

OPTION_WIDTH = 27


@dataclass(frozen=True, slots=True)
class ParameterLine:
    """One parameter: its option without the dashes, its default as it would be typed, what it means."""

    name: str
    default: str
    help: str


@dataclass(frozen=True, slots=True)
class WorkloadLines:
    """One workload: what it does, and what can be chosen."""

    name: str
    summary: str
    parameters: tuple[ParameterLine, ...]


def workloads(known: Sequence[WorkloadLines]) -> list[str]:
    """The lines of ``rmap workloads``."""
    lines: list[str] = []
    for workload in known:
        lines += wrap(workload.summary, f"{workload.name:<15}")
        for parameter in workload.parameters:
            option = f"  --{parameter.name} {parameter.default}"
            lines += wrap(parameter.help, f"{option:<{OPTION_WIDTH}} ")
    return lines
