"""The model against the recorded kernel: the verdict, then every checkpoint with its shares and first differences."""

from __future__ import annotations

from collections.abc import Mapping

from rmap.lab.replay import results as r
from rmap.lab.replay.results import Agreement, Checkpoint, ReplayReport
from rmap.show.replay import LABEL, finding_lines, trace_lines
from rmap.show.text import columns, labelled, plural, wrap
from rmap.units import format_count

METHOD = (
    "playing every event in the model, and comparing at each picture before anything is put right; what differs and "
    "may be the work of somebody whom no event shows is counted by cause and not judged"
)
ALWAYS = (r.LAYOUT, r.SHARING)
"""What the verdict names in any case; others where they are not equal."""


def verify(report: ReplayReport) -> list[str]:
    """The lines of ``rmap verify``."""
    played = report.played
    lines = _verdict(report) + trace_lines(report.trace)
    for number, checkpoint in enumerate(played.checkpoints, 1):
        lines += ["", *_checkpoint(checkpoint, number, len(played.checkpoints))]
    lines.append("")
    lines += finding_lines(played.findings)
    return lines + labelled("found by", METHOD, LABEL)


def percent(row: Agreement) -> str:
    """A share that says 100 only when all are equal: ``100 %``, ``99.98 %``; of nothing there is none."""
    if not row.compared:
        return "not compared"
    return "100 %" if row.complete else _share(row.equal, row.total)


def _share(n: int, total: int) -> str:
    return f"{min(max(100.0 * n / total, 0.01), 99.99) if 0 < n < total else 100.0 * n / total:.2f} %"


def _verdict(report: ReplayReport) -> list[str]:
    played = report.played
    totals = played.totals
    demanded = {what: row for what, row in totals.items() if what in r.DEMANDED}
    if not played.checkpoints:
        return labelled(r.NO, "there is no picture to hold the model against", LABEL)
    if not any(row.compared for row in demanded.values()):
        return labelled(r.NO, "the pictures have nothing to hold the model against", LABEL)
    named = [row for row in demanded.values() if row.what in ALWAYS or row.wrong or row.not_judged]
    said = [_in_words(row) for row in named]
    others = len([row for row in demanded.values() if row.compared]) - len([row for row in named if row.compared])
    text = ", ".join(said)
    if others > 0:
        text += f", and what is demanded of {plural(others, 'other kind of facts', 'other kinds of facts')}"
    text += f", at {plural(len(played.checkpoints), 'picture')}"
    differs = sum(finding.count for finding in played.findings if finding.meaning == r.DIFFERS)
    text += f"; {plural(differs, 'call')} went otherwise" if differs else ""
    word = played.verdict
    lines = labelled(r.EQUAL, f"as far as judged: {text}", LABEL) if word == r.AS_FAR_AS_JUDGED else []
    return (lines or labelled(word, text, LABEL)) + _left_out(report, totals)


def _in_words(row: Agreement) -> str:
    if not row.compared:
        return f"{row.what} not compared"
    wrong = f"; {format_count(row.wrong)} wrong" if row.wrong else ""
    return (
        f"{row.what} {percent(row)} ({format_count(row.equal)} of {format_count(row.total)} {r.UNITS[row.what]}{wrong})"
    )


def _left_out(report: ReplayReport, totals: Mapping[str, Agreement]) -> list[str]:
    # What the verdict does not speak of, and why.
    played = report.played
    lines: list[str] = []
    for row in totals.values():
        if row.what in r.DEMANDED and row.not_judged:
            causes = _by_cause({cause: n for cause, n in row.excused.items() if cause != r.FAULT_AROUND})
            lines += labelled(
                "not judged",
                f"{row.what}: {format_count(row.not_judged)} of {format_count(row.total)} {r.UNITS[row.what]} "
                f"({_share(row.not_judged, row.total)}): {causes}",
                LABEL,
            )
    unjudged = sum(finding.count for finding in played.findings if finding.meaning == r.NOT_JUDGED)
    if unjudged:
        lines += labelled("not judged", f"{plural(unjudged, 'event')} that the model could not play (below)", LABEL)
    if played.not_compared:
        lines += labelled("not shown", f"by every picture: {'; '.join(played.not_compared)}", LABEL)
    if played.after_last:
        lines += labelled("not shown", f"what {plural(played.after_last, 'event')} after the last picture did", LABEL)
    ahead = [(row, row.excused.get(r.FAULT_AROUND, 0)) for row in totals.values()]
    said = [f"{row.what}: {format_count(n)} of {format_count(row.total)} {r.UNITS[row.what]}" for row, n in ahead if n]
    if said:
        lines += labelled("left open", f"{'; '.join(said)} differ: {r.FAULT_AROUND}", LABEL)
    if played.refused:
        what = plural(played.refused, "call that the kernel refused", "calls that the kernel refused")
        lines += labelled("left open", f"the answer to {what}: the model was not asked", LABEL)
    return lines


def _checkpoint(checkpoint: Checkpoint, number: int, of: int) -> list[str]:
    end = " (the end)" if checkpoint.cause == "end" else ""
    lines = wrap(
        f"picture {number} of {of}{end}, after {checkpoint.time_ns / 1e9:.2f} s: "
        f"{plural(checkpoint.processes, 'process', 'processes')}, {plural(checkpoint.vmas, 'VMA')}, "
        f"{plural(checkpoint.ptes, 'PTE')}"
    )
    rows = [
        (row.what, f"{format_count(row.equal)} of {format_count(row.total)}", r.UNITS[row.what], percent(row))
        for row in checkpoint.agreements
    ]
    lines += columns(("WHAT", "EQUAL", "", ""), rows, "<><>", "  ")
    for row in checkpoint.agreements:
        if row.first:
            lines += wrap(f"{row.what}: {row.first}", "  first difference  ")
        if row.excused:
            demanded = "not judged  " if row.not_judged and row.what in r.DEMANDED else "left open   "
            said = f"{row.what}, of {format_count(row.total)} {r.UNITS[row.what]}: {_by_cause(row.excused)}"
            lines += wrap(said, f"  {demanded}      ")
    if checkpoint.resynchronised:
        said = "; ".join(f"{plural(n, 'PTE')}: {cause}" for cause, n in checkpoint.resynchronised.items())
        lines += wrap(said, "  put right         ")
    if checkpoint.areas:
        lines += wrap(plural(checkpoint.areas, "VMA"), "  put right         ")
    for note in checkpoint.notes:
        lines += wrap(note, "  ")
    return lines


def _by_cause(counts: Mapping[str, int]) -> str:
    return "; ".join(f"{format_count(n)} {cause}" for cause, n in counts.items())
