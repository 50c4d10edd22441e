"""The table of a comparison: a row per cost, a column per design."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rmap.lab.compare.unit_costs import UnitCosts
from rmap.lab.results import Comparison, DesignResult, Figure, Structure, Subject
from rmap.show.correctness import what_is_wrong
from rmap.show.side_by_side import side_by_side
from rmap.show.text import WIDTH, plural, wrap
from rmap.units import format_bytes, format_count

OPERATION_WIDTH = 9
COLUMN_GAP = 4
NONE = "-"
SIDE_BY_SIDE_FROM = 3
"""With more designs than that, each is a row and not a column."""
COUNTS_NOT_TIMES = "Counts, not times: the same on every machine. Sizes: 64-bit, 64-byte lines."


@dataclass(frozen=True, slots=True)
class TableRow:
    """One line of the table: the operation it belongs to, what is counted, a cell per design."""

    operation: str
    label: str
    cells: tuple[str, ...]


def comparisons(results: Sequence[Comparison], prices: UnitCosts | None = None) -> list[str]:
    """The whole answer of ``rmap compare``; several tables have their subject above them."""
    if len(results) == 1:
        return comparison(results[0], prices)
    lines: list[str] = []
    for result in results:
        lines += ["", *wrap(subject_line(result.subject)), *comparison(result, prices)]
    return lines[1:]


def comparison(result: Comparison, prices: UnitCosts | None = None) -> list[str]:
    """One subject's table, and what is to be said about it."""
    if len(result.designs) > SIDE_BY_SIDE_FROM:
        return side_by_side(result, prices)
    lines = cost_table(result.designs, ends_with=_verdict_rows(result.designs))
    lines.append("")
    for design in result.designs:
        if not design.correctness.equal:
            lines += wrap(what_is_wrong(design), f"{design.design}: ")
    for remark in result.remarks:
        lines += wrap(remark)
    for sentence in result.subject.inferred:
        lines += wrap(sentence, "Inferred: ")
    lines.append(COUNTS_NOT_TIMES)
    return lines


def cost_table(
    designs: Sequence[DesignResult], *, heading: str = "", indent: str = "", ends_with: Sequence[TableRow] = ()
) -> list[str]:
    """Memory and costs by operation; several tables, one below the other, where the designs do not fit in one.

    Args:
        designs: one column each.
        heading: stands in the line of the column names.
        indent: before every row.
        ends_with: rows to add, with a cell for each of ``designs``.
    """
    rows = [*_memory_rows(designs), *_figure_rows(designs), *ends_with]
    label_width = max(len(row.label) for row in rows)
    left = len(indent) + OPERATION_WIDTH + label_width
    lines: list[str] = []
    for first, last in _that_fit(designs, rows, WIDTH - left):
        if lines:
            lines.append("")
        names = [design.design for design in designs[first:last]]
        widths = [_column_width(designs[i].design, rows, i) for i in range(first, last)]
        lines.append(f"{heading:<{left}}" + "".join(f"{name:>{w}}" for name, w in zip(names, widths)))
        before = ""
        for row in rows:
            operation = row.operation if row.operation != before else ""
            before = row.operation
            cells = "".join(f"{cell:>{w}}" for cell, w in zip(row.cells[first:last], widths))
            what = f"{operation:<{OPERATION_WIDTH}}{row.label}" if row.label else operation
            lines.append(f"{indent}{what:<{OPERATION_WIDTH + label_width}}{cells}")
    return lines


def subject_line(subject: Subject) -> str:
    """What is compared, in one line for stderr."""
    seed = f", seed {subject.seed}" if subject.kind == "workload" else ""
    return f"{subject.name}: {subject_size(subject)}{seed}"


def subject_size(subject: Subject) -> str:
    """``101 processes, 720,836 pages, 6,619,136 PTEs``."""
    return (
        f"{plural(subject.processes, 'process', 'processes')}, {plural(subject.vmas, 'VMA')}, "
        f"{plural(subject.pages, 'mapped page')}, {plural(subject.ptes, 'PTE')}"
    )


def done_line(result: DesignResult) -> str:
    """A design's verdict in one line for stderr."""
    if result.correctness.equal:
        return f"{result.design:<15}done, every walk equal to the page tables"
    return f"{result.design:<15}WRONG: {what_is_wrong(result)}"


def figure_cells(values: Sequence[int | float | None], unit: str, like: Sequence[int | float | None] = ()) -> list[str]:
    """The cells of one row: averages of a row share their decimals, so that they can be compared at a glance.

    Args:
        like: the values of the row above that this one is a share of; its decimals are taken over.
    """
    averages = [abs(value) for value in like or values if isinstance(value, float)]
    largest = max(averages, default=0.0)
    decimals = 2 if largest < 10 else 1 if largest < 1000 else 0
    return [_figure_cell(value, decimals, unit) for value in values]


def _figure_cell(value: int | float | None, decimals: int, unit: str) -> str:
    if value is None:
        return NONE
    text = format_count(value) if isinstance(value, int) else "0" if value == 0 else f"{value:,.{decimals}f}"
    return f"{text} {unit}" if unit else text


def _memory_rows(designs: Sequence[DesignResult]) -> Iterator[TableRow]:
    structures = [{s.label: s for s in design.memory} for design in designs]
    for label in dict.fromkeys(label for by_label in structures for label in by_label):
        by_design = [by_label.get(label) for by_label in structures]
        cells = tuple(NONE if s is None else format_bytes(s.bytes) for s in by_design)
        yield TableRow("memory", label + _how_many([s for s in by_design if s is not None]), cells)
    yield TableRow("memory", "bytes per mapped page", tuple(figure_cells([d.bytes_per_page for d in designs], "")))


def _how_many(structures: list[Structure]) -> str:
    # "chain blocks: 71,208 x 64 B": only where one design has them, as the row has one label for all.
    if len(structures) != 1 or structures[0].count is None or structures[0].bytes_each is None:
        return ""
    return f": {format_count(structures[0].count)} x {structures[0].bytes_each} B"


def _figure_rows(designs: Sequence[DesignResult]) -> Iterator[TableRow]:
    by_key = [dict(_keyed(design.figures)) for design in designs]
    keys = dict.fromkeys(key for figures in by_key for key in figures)
    rank = {key: i for i, key in enumerate(keys)}
    for operation in dict.fromkeys(key[0] for key in keys):
        # A share of the row above stays below it: its key begins with that row's.
        of_operation = [key for key in keys if key[0] == operation]
        of_operation.sort(key=lambda key: (rank.get(key[:2], rank[key]), len(key)))
        for key in of_operation:
            figures = [figures.get(key) for figures in by_key]
            above = [figures.get(key[:2]) for figures in by_key]
            cells = tuple(_mixed_cells(figures, above))
            yield TableRow(operation, "  " * (len(key) - 2) + key[-1], cells)


def _keyed(figures: Sequence[Figure]) -> Iterator[tuple[tuple[str, ...], Figure]]:
    # (operation, label), or (operation, label of the row above, label) for a share of it.
    above = ""
    for figure in figures:
        if figure.part_of_above:
            yield (figure.operation, above, figure.label), figure
        else:
            above = figure.label
            yield (figure.operation, figure.label), figure


def _mixed_cells(figures: Sequence[Figure | None], above: Sequence[Figure | None]) -> Iterator[str]:
    values, like = ([None if figure is None else figure.value for figure in row] for row in (figures, above))
    plain = figure_cells(values, "", like)
    for figure, cell in zip(figures, plain):
        yield f"{cell} {figure.unit}" if figure is not None and figure.unit else cell


def _verdict_rows(designs: Sequence[DesignResult]) -> list[TableRow]:
    right = tuple("yes" if design.correctness.equal else "NO" for design in designs)
    return [
        TableRow("VMAs at the end", "", tuple(format_count(design.vmas) for design in designs)),
        TableRow("all PTEs of all pages found", "", right),
    ]


def _column_width(name: str, rows: Sequence[TableRow], i: int) -> int:
    return COLUMN_GAP + max(len(name), *(len(row.cells[i]) for row in rows))


def _that_fit(designs: Sequence[DesignResult], rows: Sequence[TableRow], room: int) -> Iterator[tuple[int, int]]:
    # Spans of designs whose columns fit beside the labels; at least one design each.
    first, used = 0, 0
    for i, design in enumerate(designs):
        width = _column_width(design.design, rows, i)
        if used + width > room and i > first:
            yield first, i
            first, used = i, 0
        used += width
    yield first, len(designs)
