"""The model against the recorded kernel: the verdict, then every checkpoint with its shares and first differences."""

from __future__ import annotations

from collections.abc import Mapping

from rmap.lab.replay.results import DEMANDED, UNITS, Agreement, Checkpoint, ReplayReport
from rmap.show.replay import LABEL, film_lines, finding_lines
from rmap.show.text import columns, labelled, plural, wrap
from rmap.units import format_count

METHOD = (
    "playing every event in the model, and comparing at each picture before anything is put right; what no event "
    "shows is counted by cause and not judged"
)


def verify(report: ReplayReport) -> list[str]:
    """The lines of ``rmap verify``."""
    played = report.played
    lines = _verdict(report) + film_lines(report.film)
    for number, checkpoint in enumerate(played.checkpoints, 1):
        lines += ["", *_checkpoint(checkpoint, number, len(played.checkpoints))]
    lines.append("")
    lines += finding_lines(played.findings)
    return lines + labelled("found by", METHOD, LABEL)


def percent(row: Agreement) -> str:
    """A share that says 100 only when all are equal: ``100 %``, ``99.98 %``."""
    if row.complete:
        return "100 %"
    return f"{min(row.percent, 99.99):.2f} %"


def _verdict(report: ReplayReport) -> list[str]:
    checkpoints = report.played.checkpoints
    if not checkpoints:
        return labelled("NO", "there is no picture to hold the model against", LABEL)
    said = []
    for what in DEMANDED:
        rows = [row for checkpoint in checkpoints for row in checkpoint.agreements if row.what == what]
        total, equal = sum(row.total for row in rows), sum(row.equal for row in rows)
        share = percent(Agreement(what, equal, total))
        excused = sum(sum(row.excused.values()) for row in rows)
        aside = f"; {format_count(excused)} not judged" if excused else ""
        said.append(f"{what} {share} ({format_count(equal)} of {format_count(total)} {UNITS[what]}{aside})")
    word = "equal" if report.played.agrees else "NO"
    return labelled(word, f"{', '.join(said)} at {plural(len(checkpoints), 'picture')}", LABEL)


def _checkpoint(checkpoint: Checkpoint, number: int, of: int) -> list[str]:
    end = " (the end)" if checkpoint.cause == "end" else ""
    lines = wrap(
        f"picture {number} of {of}{end}, after {checkpoint.time_ns / 1e9:.2f} s: "
        f"{plural(checkpoint.processes, 'process', 'processes')}, {plural(checkpoint.vmas, 'VMA')}, "
        f"{plural(checkpoint.ptes, 'PTE')}"
    )
    rows = [
        (row.what, f"{format_count(row.equal)} of {format_count(row.total)}", UNITS[row.what], percent(row))
        for row in checkpoint.agreements
    ]
    lines += columns(("WHAT", "EQUAL", "", ""), rows, "<><>", "  ")
    for row in checkpoint.agreements:
        if row.first:
            lines += wrap(f"{row.what}: {row.first}", "  first difference  ")
        if row.excused:
            lines += wrap(_by_cause(row.excused), "  not judged        ")
    if checkpoint.resynchronised:
        lines += wrap(_by_cause(checkpoint.resynchronised), "  put right         ")
    if checkpoint.areas:
        lines += wrap(plural(checkpoint.areas, "VMA"), "  put right         ")
    for note in checkpoint.notes:
        lines += wrap(note, "  ")
    return lines


def _by_cause(counts: Mapping[str, int]) -> str:
    return "; ".join(f"{plural(n, 'PTE')}: {cause}" for cause, n in counts.items())
