"""What a replay did: events, costs by operation, what was put right, whether the end is right."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from rmap.lab.replay.results import DIFFERS, NOT_JUDGED, NOTED, Finding, ReplayReport, TraceSummary
from rmap.show.text import columns, labelled, plural, wrap
from rmap.units import format_bytes, format_count

LABEL = 12
LONGEST_COMMAND = 200
MOST_CALLS = 8
MEANINGS = {DIFFERS: "otherwise", NOT_JUDGED: "not judged", NOTED: "noted"}
COSTS = (
    ("faults", "FAULTS"),
    ("ptes_added", "PTES ADDED"),
    ("ptes_removed", "REMOVED"),
    ("objects_made", "OBJECTS MADE"),
    ("entries_written", "ENTRIES WRITTEN"),
)


def replay(report: ReplayReport) -> list[str]:
    """The lines of ``rmap replay``."""
    played, answer = report.played, report.correctness
    verdict = "sound" if answer.equal else "WRONG"
    moment = "at the last picture" if played.checkpoints else "at the end"
    lines = labelled(
        verdict,
        f"{moment} {report.design} found {format_count(answer.ptes_found)} of "
        f"{plural(answer.ptes_total, 'PTE')} of {plural(answer.pages, 'page')}",
        LABEL,
    )
    lines += trace_lines(report.trace)
    kinds = ", ".join(f"{format_count(n)} {kind}" for kind, n in played.events.items())
    lines += labelled("events", kinds or "none", LABEL)
    lines += labelled("calls", _few_calls(played.calls), LABEL)
    lines += labelled(
        "machine",
        f"{plural(report.processes, 'process', 'processes')}, {plural(report.vmas, 'VMA')} then; "
        f"{plural(played.processes, 'process', 'processes')}, {plural(played.execs, 'exec')} in all; "
        f"metadata {format_bytes(sum(report.structures.values()))}",
        LABEL,
    )
    lines += ["", *_costs(report.costs), ""]
    lines += put_right_lines(report)
    lines += finding_lines(played.findings)
    return lines


def trace_lines(trace: TraceSummary) -> list[str]:
    """Which trace: ``trace     prefork.trace: python3 server.py, Linux 6.18.44, by bpf, ...``."""
    command = textwrap.shorten(" ".join(trace.command), LONGEST_COMMAND, placeholder=" ...")
    seconds = trace.span_ns / 1e9
    lines = labelled(
        "trace",
        f"{trace.name}: {command or 'no command'}, Linux {trace.release or 'of unknown release'}, "
        f"{format_count(trace.events)} events in {seconds:.2f} s, {plural(trace.pictures, 'picture')}, "
        f"{format_count(trace.lost)} lost",
        LABEL,
    )
    if not trace.complete:
        lines += labelled("incomplete", trace.why_incomplete, LABEL)
    return lines


def put_right_lines(report: ReplayReport) -> list[str]:
    """What was made equal to the pictures, by cause."""
    total: dict[str, int] = {}
    areas = 0
    for checkpoint in report.played.checkpoints:
        areas += checkpoint.areas
        for cause, n in checkpoint.resynchronised.items():
            total[cause] = total.get(cause, 0) + n
    if not report.played.checkpoints:
        return labelled("put right", "nothing: the trace has no picture but those of exec", LABEL)
    said = [f"{plural(n, 'PTE')}: {cause}" for cause, n in sorted(total.items(), key=lambda item: -item[1])]
    said += [plural(areas, "VMA")] if areas else []
    return labelled("put right", "; ".join(said) or "nothing", LABEL)


def finding_lines(findings: tuple[Finding, ...]) -> list[str]:
    """What went otherwise than on the kernel, or could not be told, each with its first example."""
    lines: list[str] = []
    for finding in findings:
        lines += labelled(MEANINGS[finding.meaning], f"{format_count(finding.count)} x {finding.what}", LABEL)
        lines += wrap(f"first: {finding.first}", " " * LABEL)
    return lines


def _few_calls(calls: Mapping[str, int]) -> str:
    shown = [f"{format_count(n)} {name}" for name, n in list(calls.items())[:MOST_CALLS]]
    left = sum(list(calls.values())[MOST_CALLS:])
    return ", ".join(shown) + (f", {format_count(left)} others" if left else "") if shown else "none"


def _costs(costs: Mapping[str, Mapping[str, int]]) -> list[str]:
    rows = []
    for operation, counts in costs.items():
        if operation not in ("setup", "walk"):
            cells = [format_count(counts.get(name, 0)) for name, _ in COSTS]
            rows.append((operation, format_count(counts.get("calls", 0)), *cells))
    return columns(("OPERATION", "CALLS", *(title for _, title in COSTS)), rows, "<" + ">" * (1 + len(COSTS)))
