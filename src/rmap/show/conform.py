"""What a differential run found: the verdict, how much was compared, and what differs as a script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rmap.lab.conform import ConformRun, Incident
from rmap.show.text import columns, labelled, plural, wrap
from rmap.units import format_count

LABEL_WIDTH = 12
MOST_INCIDENTS = 5
DIFFERENCE = "difference"


def conformance(result: ConformRun) -> list[str]:
    """The whole answer of ``rmap conform``."""
    lines = [*wrap(verdict(result)), "", *_facts(result), "", *_calls(result.calls, result.refused)]
    for incidents, what in (
        (result.not_seen_again, "Differed once and not again when repeated; it depends on more than the calls:"),
        (result.lost, "Lost a puppet to something else than its calls; nothing was concluded:"),
    ):
        lines += ["", *wrap(what), *_incidents(incidents)] if incidents else []
    if result.divergence is not None:
        for remark in _remarks(result):
            lines += ["", *wrap(remark)]
        lines += ["", result.divergence.script.rstrip()]
    return lines


def _remarks(result: ConformRun) -> Iterator[str]:
    # What else a difference may come from than a mistake.
    if not result.design.startswith("anon_vma"):
        yield (
            f"The running kernel has anon_vmas, and they forbid some merges (rule 3.3). {result.design} forbids none,"
            " so a difference in areas that are merged is one of the designs."
        )
    if not result.release.startswith(f"{result.profile}."):
        yield (
            f"The model follows the rules of {result.profile}, the kernel is {result.release}: the difference may be"
            " one of the releases."
        )


def verdict(result: ConformRun) -> str:
    """The answer in one sentence."""
    done = f"{plural(result.steps, 'step')} in {plural(result.scenarios, 'scenario')}"
    if result.divergence is not None:
        divergence = result.divergence
        return (
            f"The model is WRONG, or the kernel is: after {done}, the scenario of seed {divergence.seed} diverges; "
            f"{plural(len(divergence.steps), 'call')} of its {divergence.drawn} show it."
        )
    # The last step of a scenario that lost a puppet, or differed once, is not among those that were equal.
    missing = result.steps - result.compared.looks - len(result.lost) - len(result.not_seen_again)
    ends = "all equal" if missing <= 0 else f"NOT all compared: {plural(missing, 'step')} went unseen"
    ends += "" if result.complete else " so far; interrupted, so this is a part of what was asked for"
    but = [plural(len(result.not_seen_again), DIFFERENCE) + " not seen again"] if result.not_seen_again else []
    but += [f"{plural(len(result.lost), 'scenario')} cut short, of which nothing is known"] if result.lost else []
    return f"{done}: {ends}{', but for ' + ' and '.join(but) if but else ''}."


def _facts(result: ConformRun) -> Iterator[str]:
    c = result.compared
    sees = "the kernel's own structures, by BPF" if result.bpf is None else f"what /proc shows (no BPF: {result.bpf})"
    swap = f"; {format_count(result.swapping)} with swap" if result.swap else ""
    rate = result.steps / result.seconds if result.seconds else 0.0
    facts = (
        ("kernel", f"Linux {result.release}"),
        ("model", f"design {result.design}, rules of {result.profile}"),
        ("seeds", f"from {result.seed}{swap}"),
        ("compared", f"{sees}, after {plural(c.looks, 'step')}"),
        ("", f"VMAs {format_count(c.vmas)}, PTEs {format_count(c.ptes)}, pages {format_count(c.pages)}"),
        ("", f"swap entries {format_count(c.swapped)}" if c.swapped else ""),
        ("", f"anon_vmas {format_count(c.anon_vmas)}, links {format_count(c.links)}" if c.anon_vmas else ""),
        ("", f"interval trees {format_count(c.trees)}" if c.trees else ""),
        ("", f"{plural(c.settled, 'look')} taken again, and equal then" if c.settled else ""),
        ("time", f"{result.seconds:.1f} s, {rate:,.0f} steps a second"),
        *(("undone", sentence) for sentence in result.undone),
    )
    for label, text in facts:
        if text:
            yield from labelled(label, text, LABEL_WIDTH)


def _calls(calls: Mapping[str, int], refused: Mapping[str, int]) -> list[str]:
    rows = [
        (kind, format_count(count), format_count(refused.get(kind, 0)))
        for kind, count in sorted(calls.items(), key=lambda item: (-item[1], item[0]))
    ]
    return columns(("CALL", "MADE", "REFUSED"), rows, "<>>")


def _incidents(incidents: list[Incident]) -> Iterator[str]:
    for incident in incidents[:MOST_INCIDENTS]:
        first, *rest = incident.why.splitlines()
        yield from wrap(first, f"  seed {incident.seed}: ", "    ")
        yield from (f"    {line}" for line in rest)
    if len(incidents) > MOST_INCIDENTS:
        yield f"  ... {format_count(len(incidents) - MOST_INCIDENTS)} more (--json)"
