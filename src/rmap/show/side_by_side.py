"""Many designs on one screen: a row for each, a table for each question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rmap.lab.compare.unit_costs import UnitCosts, load, predicted
from rmap.lab.compare.work import OPERATIONS_SHOWN, steps_per_unit
from rmap.lab.results import Comparison, DesignResult, WalkFigures
from rmap.show.correctness import what_is_wrong
from rmap.show.text import columns, wrap
from rmap.units import format_bytes, format_count

PREDICTION = (
    "predicted: the reverse map's share of the time, from counted steps at {machine} prices; a prediction, not a "
    "measurement (rmap calibrate measures prices here)."
)
NOTES = (
    "steps: blocks, list members and tree nodes visited, entries written, page tables descended, objects made, freed.",
    "worst: the page whose walk looks at most, steps and PTEs together.",
    "Counts, not times, but for the prediction: the same on every machine.",
)


def side_by_side(result: Comparison, prices: UnitCosts | None = None) -> list[str]:
    """What every design keeps, does and looks at, for one subject."""
    prices = load() if prices is None else prices
    lines = ["WHAT IT KEEPS", *_memory(result.designs), "", "WHAT IT DOES, in steps", *_work(result.designs, prices)]
    labels = dict.fromkeys(walk.label for design in result.designs for walk in design.walks)
    for label in labels:
        lines += ["", f"A WALK: {label}", *_walks(result.designs, label)]
    lines.append("")
    for design in result.designs:
        if not design.correctness.equal:
            lines += wrap(what_is_wrong(design), f"{design.design}: ")
    for note in (*result.remarks, *NOTES, PREDICTION.format(machine=prices.machine or "these")):
        lines += wrap(note)
    return lines


def _memory(designs: Sequence[DesignResult]) -> list[str]:
    rows = [
        (
            d.design,
            format_bytes(d.bytes_live),
            format_bytes(d.bytes_in_slabs),
            f"{d.bytes_per_page:,.1f}",
            format_count(d.vmas),
            "yes" if d.correctness.equal else "NO",
        )
        for d in designs
    ]
    return columns(("design", "live", "in slabs", "B per page", "VMAs", "right"), rows, "<>>>>>")


def _work(designs: Sequence[DesignResult], prices: UnitCosts) -> list[str]:
    done = [name for name, _, _ in OPERATIONS_SHOWN if any(steps_per_unit(d.costs, name) for d in designs)]
    units = {name: unit for name, _, unit in OPERATIONS_SHOWN}
    rows = [
        (
            d.design,
            *(_number(steps_per_unit(d.costs, name)) for name in done),
            _milliseconds(sum(ns for operation, ns in predicted(prices, d.costs) if operation != "walk")),
        )
        for d in designs
    ]
    header = ("design", *(f"{name}/{units[name]}" for name in done), "predicted")
    return columns(header, rows, "<" + ">" * (len(done) + 1))


def _walks(designs: Sequence[DesignResult], label: str) -> list[str]:
    rows = [(d.design, *_walk_cells(walk)) for d in designs for walk in d.walks if walk.label == label]
    return columns(("design", "mapped by", "PTEs looked at", "in vain", "steps", "worst"), rows, "<>>>>>")


def _walk_cells(walk: WalkFigures) -> Iterator[str]:
    for value in (walk.mappers, walk.looked_at, walk.in_vain, walk.visits):
        yield _number(value)
    yield format_count(walk.worst) + ("" if walk.worst_of >= min(walk.pages, 100) else "+")


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if not value:
        return "0"
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def _milliseconds(ns: float) -> str:
    return f"{ns / 1e6:,.2f} ms" if ns < 1e8 else f"{ns / 1e9:,.2f} s"
