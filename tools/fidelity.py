"""The matrix of docs/fidelity.md: every rule, whether the model has it, and how often that was put to the test.

    python tools/fidelity.py            run everything that counts (root, some minutes); docs/evidence.json, the matrix
    python tools/fidelity.py --table    only the matrix, from docs/evidence.json

A rule counts as exercised when the code that cites it runs (tools/rule_counts.py), in a run that ends without a
finding: the exhaustive search (every state held against the invariants and the oracle), differential runs (every step
held against the running kernel), recorded programs (every picture held against the recorded kernel).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT)]

from rule_counts import NUMBER, RuleCounts  # noqa: E402

EVIDENCE = ROOT / "docs" / "evidence.json"
PAGE = ROOT / "docs" / "fidelity.md"
RULES = ROOT / "docs" / "rules.md"
BEGIN, END = "<!-- the matrix: made by tools/fidelity.py -->", "<!-- end of the matrix -->"
COLUMNS = ("exhaustive", "differential", "recorded")
SHORTEST, LONGEST = 25, 100
COMPARED = {
    "vmas": "VMAs",
    "ptes": "PTEs",
    "pages": "pages",
    "anon_vmas": "anon_vmas",
    "links": "links of chains",
}
Evidence = dict[str, Any]


def exhaustive(depth: int) -> Evidence:
    """Every sequence of calls up to a depth, in this process."""
    from tests.model.exhaustive import search

    with RuleCounts(ROOT / "src" / "rmap") as counts:
        *_, done = search("anon_vma_chain", depth)
    return {"depth": depth, "calls": done.calls, "states": done.states, "rules": dict(counts.counts)}


def differential(steps: int, seed: int) -> Evidence:
    """Random calls by the model and by real processes."""
    from rmap.lab.conform import conform

    with RuleCounts(ROOT / "src" / "rmap") as counts:
        done = conform(seed=seed, steps=steps, swap=True)
    odd = done.bpf or done.divergence or done.not_seen_again or done.lost
    if odd or not done.complete or done.compared.looks != done.steps:
        raise SystemExit(f"the run is no evidence: {odd or 'not every step was compared'}")
    compared = {name: getattr(done.compared, name) for name in COMPARED}
    return {
        "release": done.release,
        "seed": seed,
        "steps": done.steps,
        "scenarios": done.scenarios,
        **compared,
        "settled": done.compared.settled,
        "rules": dict(counts.counts),
    }


def recorded() -> Evidence:
    """The recorded programs that ship."""
    from rmap.lab.replay.results import EQUAL
    from rmap.lab.replay.run import replay
    from rmap.lab.replay.shipped import shipped_traces

    programs = {}
    with RuleCounts(ROOT / "src" / "rmap") as counts:
        for name, path in shipped_traces().items():
            report = replay(path)
            if report.played.verdict != EQUAL:
                raise SystemExit(f"{name} is no evidence: {report.played.verdict}")
            rows = [row for checkpoint in report.played.checkpoints for row in checkpoint.agreements]
            programs[name] = {
                "release": report.trace.release,
                "events": report.trace.events,
                "pictures": len(report.played.checkpoints),
                "equal": {what: sum(row.equal for row in rows if row.what == what) for what in {r.what for r in rows}},
            }
    return {"programs": programs, "rules": dict(counts.counts)}


def live(workers: int) -> Evidence:
    """The kernel's own state, under a load of forked workers."""
    from rmap.live.bpf import memory_or_none
    from rmap.live.soundness import check_machine
    from tests.support.load import load

    with load(workers=workers, pages=100_000, vmas=7_000), ExitStack() as stack:
        memory = memory_or_none()
        found = check_machine(memory and stack.enter_context(memory))
    if found.report.violations or found.unsettled:
        raise SystemExit(f"the kernel breaks a promise: {[*found.report.violations, *found.unsettled][0]}")
    counted: dict[str, dict[str, int]] = {}
    for line in found.report.checked:
        units = counted.setdefault(line.invariant, {})
        units[line.unit] = max(line.checked, units.get(line.unit, 0))
    facts = {name: found.facts[name] for name in ("processes", "vmas", "anon_vmas", "anon_pages")}
    return {"release": os.uname().release, "workers": workers, **facts, "races": found.races, "invariants": counted}


def gather(args: argparse.Namespace) -> Evidence:
    """Run everything."""
    runs: dict[str, Callable[[], Evidence]] = {
        "exhaustive": lambda: exhaustive(args.depth),
        "differential": lambda: differential(args.steps, args.seed),
        "recorded": recorded,
        "live": lambda: live(args.workers),
    }
    command = f"python tools/fidelity.py --depth {args.depth} --steps {args.steps} --seed {args.seed}"
    evidence: Evidence = json.loads(EVIDENCE.read_text()) if args.only and EVIDENCE.exists() else {}
    for name, run in runs.items():
        if args.only and name not in args.only:
            continue
        began = time.monotonic()
        evidence[name] = {**run(), "command": command}
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return evidence


def rules() -> dict[str, str]:
    """Every numbered rule of docs/rules.md: its text in one line."""
    text = RULES.read_text()
    found = re.finditer(rf"^\*\*({NUMBER})\*\*(.*?)(?=^\*\*\d|^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return {match[1]: " ".join(match[2].split()) for match in found}


def matrix(evidence: Evidence) -> list[str]:
    """The lines of the matrix."""
    lines = [
        "| rule | says | model | known from | " + " | ".join(COLUMNS) + " | held against |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | --- |",
    ]
    for number, text in rules().items():
        modelled = _part(text, "Model").split(";")[0].split(". ")[0]
        counts = [evidence[column]["rules"].get(number, 0) for column in COLUMNS]
        held = _releases(evidence) if counts[1] or counts[2] else ""
        cells = [
            *(number, _says(text), modelled or "–", _part(text, "Known from")[:1] or "–"),
            *(f"{count:,}" if count else "–" for count in counts),
            held or ("the invariants" if counts[0] else "–"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _releases(evidence: Evidence) -> str:
    # The kernels that runs were held against: "6.18.44".
    programs = evidence["recorded"]["programs"].values()
    every = {evidence["differential"]["release"], *(one["release"] for one in programs)}
    return ", ".join(sorted({release.split("-")[0] for release in every}))


def summary(evidence: Evidence) -> list[str]:
    """What the numbers come from, in words."""
    every, real, film, now = (evidence[name] for name in (*COLUMNS, "live"))
    equal = ", ".join(f"{real[name]:,} {what}" for name, what in COMPARED.items())
    commands = " and ".join(f"`{command}`" for command in sorted({part["command"] for part in evidence.values()}))
    promises = (
        f"{number} ({', '.join(f'{count:,} {unit}' for unit, count in sorted(units.items()))})"
        for number, units in sorted(now["invariants"].items(), key=lambda item: _place(item[0]))
    )
    lines = [
        f"{commands} counted:",
        "",
        f"* **exhaustive**: all sequences of up to {every['depth']} calls: {every['calls']:,} calls,"
        f" {every['states']:,} different states, each held against the invariants and the oracle;",
        f"* **differential**: {real['steps']:,} steps of {real['scenarios']:,} random scenarios, seeds from"
        f" {real['seed']}, on Linux {real['release']}; every step was compared, {real['settled']:,} of them twice"
        f" because another actor of the kernel held a page for a moment; equal were, summed up, {equal};",
        "* **recorded**: programs that ran on Linux "
        + ", ".join(sorted({one["release"] for one in film["programs"].values()}))
        + ", each equal at every picture: "
        + ", ".join(f"{name} ({one['events']:,} events)" for name, one in sorted(film["programs"].items()))
        + ";",
        f"* the **kernel's own state** under {now['workers']} workers, on Linux {now['release']}: {now['processes']:,}"
        f" processes, {now['vmas']:,} VMAs, {now['anon_vmas']:,} anon_vmas, {now['anon_pages']:,} anonymous pages, no"
        f" violation of " + ", ".join(promises) + ".",
    ]
    return [piece for line in lines for piece in (_wrapped(line) if line else [""])]


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, 120, subsequent_indent="  " if line.startswith("* ") else "", break_on_hyphens=False)


def _place(number: str) -> tuple[bool, int, str]:
    return not number.startswith("I"), int(re.sub(r"\D", "", number.split(".")[0])), number


def _part(text: str, name: str) -> str:
    # The text behind *NAME*: up to the next such name.
    found = re.search(rf"\*{name}\*: (.*?)(?=\s\*[A-Z]|$)", text)
    return found[1].rstrip(". ") if found else ""


def _says(text: str) -> str:
    # The beginning of a rule, short enough for a cell: its first clause, or two where that one is only a name.
    whole = text.split("*Model*")[0].replace("**", "").replace("|", "\\|").strip()
    ends = [match.end() for match in re.finditer(r"(?<=[A-Za-z0-9`\])])[.:;](?: |$)", whole)] or [len(whole)]
    enough = next((end for end in ends if end >= SHORTEST), ends[-1])
    first = whole[:enough].rstrip(".:; ")
    return first if len(first) <= LONGEST else first[: LONGEST - 4].rsplit(" ", 1)[0] + " ..."


def write_page(evidence: Evidence) -> None:
    """Put the matrix into docs/fidelity.md."""
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text("\n".join([before + BEGIN, *summary(evidence), "", *matrix(evidence), END + after]))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", action="store_true", help="only write the matrix, from what was counted before")
    parser.add_argument("--only", action="append", choices=[*COLUMNS, "live"], help="count only this, keep the rest")
    parser.add_argument("--depth", type=int, default=3, help="of the exhaustive search (default 3)")
    parser.add_argument("--steps", type=int, default=10_000, help="of the differential run (default 10,000)")
    parser.add_argument("--seed", type=int, default=1, help="of its first scenario (default 1)")
    parser.add_argument("--workers", type=int, default=50, help="of the load (default 50)")
    args = parser.parse_args()
    if not args.table:
        EVIDENCE.write_text(json.dumps(gather(args), indent=1, sort_keys=True) + "\n")
    write_page(json.loads(EVIDENCE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
