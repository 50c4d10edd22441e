"""A report as one HTML page: what every design keeps, does and looks at, over the size of each workload.

Everything is in the page: style, pictures, tables. No script runs and nothing is fetched, so it reads the same from a
disk, in a mail and in ten years. Colours follow the reader's choice of light or dark, and never carry a fact alone:
each line has its name, and each chart its table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from html import escape

from rmap import __version__
from rmap.designs import DESIGNS
from rmap.lab.compare.report import ReportRun
from rmap.lab.compare.unit_costs import UnitCosts, predicted
from rmap.lab.compare.work import STEPS
from rmap.lab.results import DesignResult
from rmap.show.chart import Line, line_chart
from rmap.units import format_bytes, format_count

STYLE = """
:root{--bg:#fff;--fg:#1b1f24;--dim:#5b6570;--rule:#d8dee4;--card:#f6f8fa;
--k0:#0072b2;--k1:#d55e00;--k2:#00795c;--k3:#a0446f;--k4:#8a6d00;--k5:#5b6570}
@media (prefers-color-scheme:dark){:root{--bg:#0f1419;--fg:#e6e9ec;--dim:#9aa5b1;--rule:#2c343d;--card:#171d24;
--k0:#56b4e9;--k1:#ff9046;--k2:#3fcf9f;--k3:#e08fb8;--k4:#e8c547;--k5:#9aa5b1}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 4rem;max-width:76rem;background:var(--bg);color:var(--fg);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.9rem;line-height:1.2;margin:.2em 0}h2{margin:2.6rem 0 .2rem;border-top:1px solid var(--rule);
padding-top:1.2rem}h3{font-size:1rem;margin:.2rem 0}
p{max-width:46rem}.dim,figcaption,small{color:var(--dim)}code{font:.9em ui-monospace,monospace}
nav{columns:14rem;margin:1rem 0}nav a{display:block}a{color:var(--k0)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,28rem),1fr));gap:1rem;margin:1rem 0}
figure{margin:0;padding:.8rem;background:var(--card);border:1px solid var(--rule);border-radius:6px;min-width:0}
svg{width:100%;height:auto;display:block}svg text{font:11px system-ui,sans-serif;fill:var(--fg)}
.axis{fill:var(--dim)!important}.grid,.lead{stroke:var(--rule);stroke-width:1}polyline{fill:none;stroke-width:2}
.dot{stroke:none!important}.name{font-weight:600}
"""
COLOURS = "".join(
    f".c{n}{{stroke:var(--k{n})}}circle.c{n}{{fill:var(--k{n})}}.t{n}{{fill:var(--k{n})!important}}" for n in range(6)
)
TABLES = """
.scroll{overflow-x:auto}.wide{min-width:36rem}table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
th:first-child,td:first-child{text-align:left}details{margin:.5rem 0}summary{cursor:pointer}
"""

QUESTION = (
    "Why did Linux go from chains of page-table entries to reverse mapping by objects, what does each gain and pay, "
    "and is it right?"
)
ANSWER = (
    "A chain is never wrong about where a page is mapped, and pays for that at every fault, fork and exit, entry by "
    "entry: in time, and in memory that grows with sharing. An object costs something per area of a process, nothing "
    "per page, and pays when it is asked: it names areas that may map the page, and page tables have to be looked at. "
    "Each design below was driven through the same system calls, and each of its answers was compared with the page "
    "tables themselves."
)

Measure = Callable[[DesignResult], float | None]


def report_page(runs: Sequence[ReportRun], prices: UnitCosts, *, command: str) -> str:
    """The page.

    Args:
        runs: what was run, in the order of the page.
        prices: for the predictions.
        command: how to make it again.
    """
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>Reverse maps of Linux, compared</title><style>{STYLE}{COLOURS}{TABLES}</style></head><body>",
            *_head(runs, command),
            *(line for run in runs for line in _section(run, prices)),
            *_foot(prices),
            "</body></html>\n",
        ]
    )


def _head(runs: Sequence[ReportRun], command: str) -> Iterator[str]:
    designs = runs[0].comparisons[0].designs if runs else ()
    right = all(run.equal for run in runs)
    walks = sum(d.correctness.ptes_total for run in runs for c in run.comparisons for d in c.designs)
    yield "<header><small>rmap: Linux reverse mapping, an executable model</small>"
    yield f"<h1>{escape(QUESTION)}</h1><p>{escape(ANSWER)}</p>"
    verdict = "every one was found, and nothing else" if right else "NOT ALL WERE RIGHT: see below"
    yield (
        f"<p><strong>{len(runs)} workloads, {len(designs)} designs, {format_count(walks)} page-table entries asked "
        f"for: {verdict}.</strong> Figures are counts: they are the same on every machine.</p>"
    )
    yield '<div class="scroll"><table class=wide><tr><th>design</th><th>release</th>'
    yield '<th style="text-align:left">how</th></tr>'
    for number, design in enumerate(designs):
        info = DESIGNS[design.design.partition(":")[0]]
        yield (
            f'<tr><td><span style="color:var(--k{number % 6})">&#9632;</span> {escape(design.design)}</td><td>'
            f'{escape(info.release)}</td><td style="text-align:left;white-space:normal">{escape(info.essence)}'
            "</td></tr>"
        )
    yield "</table></div><h3>Workloads</h3><nav>"
    for run in runs:
        yield f'<a href="#{_anchor(run)}">{escape(run.workload.name)}</a>'
    yield f"</nav><p class=dim>Made by <code>{escape(command)}</code>, rmap {escape(__version__)}.</p></header><main>"


def _section(run: ReportRun, prices: UnitCosts) -> Iterator[str]:
    last = run.comparisons[-1]
    subject = last.subject
    yield f'<section id="{_anchor(run)}"><h2>{escape(run.workload.name)}</h2><p>{escape(run.workload.summary)}'
    source = f" <span class=dim>{escape(run.workload.source)}.</span>" if run.workload.source else ""
    at = f", {run.scales[-1]:.4g} of the published size" if run.scales[-1] else ""
    yield (
        f"{source}<br><span class=dim>At its largest here{at}: {format_count(subject.processes)} processes, "
        f"{format_count(subject.vmas)} VMAs, {format_count(subject.pages)} mapped pages, {format_count(subject.ptes)} "
        f"entries; seed {subject.seed}.</span></p><div class=charts>"
    )
    for title, caption, measure in _measures(run, prices):
        yield _figure(run, title, caption, measure)
    yield f"</div><details><summary>The figures at the largest scale</summary>{_table(last.designs, prices)}"
    yield "</details></section>"


def _measures(run: ReportRun, prices: UnitCosts) -> Iterator[tuple[str, str, Measure]]:
    yield "Metadata, bytes", "all structures of the reverse map that live at the end", lambda d: float(d.bytes_live)
    yield (
        "Work done by the program's calls, steps",
        "blocks, lists and trees visited, entries written, objects made and freed; faults, forks, exits and evictions",
        _steps,
    )
    labels = [walk.label for walk in run.comparisons[-1].designs[0].walks]
    for label in labels[:1]:
        yield (
            f"A walk of {label}, steps and entries",
            "what has to be looked at to find all entries that map one page, on average",
            partial(_walked, label),
        )
    yield (
        "Predicted time, ms",
        "the steps at the prices at the end of this page: a prediction, not a measurement",
        lambda d: sum(ns for op, ns in predicted(prices, d.costs) if op != "walk") / 1e6,
    )


def _walked(label: str, result: DesignResult) -> float | None:
    return next((walk.visits + walk.looked_at for walk in result.walks if walk.label == label), None)


def _steps(result: DesignResult) -> float:
    return float(
        sum(n for op, row in result.costs.items() if op != "walk" for name, n in row.items() if name in STEPS)
    )


def _figure(run: ReportRun, title: str, caption: str, measure: Measure) -> str:
    names = [design.design for design in run.comparisons[-1].designs]
    columns = [{d.design: measure(d) for d in comparison.designs} for comparison in run.comparisons]
    lines = [Line(name, n, tuple(column.get(name) for column in columns)) for n, name in enumerate(names)]
    points = [f"{scale:.3g}" if scale else "" for scale in run.scales]
    chart = line_chart(points, lines, f"{run.workload.name}: {title}")
    under = "" if len(points) == 1 else " Along: the scale."
    return f"<figure><h3>{escape(title)}</h3>{chart}<figcaption>{escape(caption)}.{under}</figcaption></figure>"


def _table(designs: Sequence[DesignResult], prices: UnitCosts) -> str:
    head = ["design", "live", "in slabs", "bytes per page", "steps", "predicted ms", "VMAs", "right"]
    walks = list(dict.fromkeys(walk.label for design in designs for walk in design.walks))
    head += [f"{label}: {what}" for label in walks for what in ("PTEs", "in vain", "worst")]
    rows = []
    for d in designs:
        ms = sum(ns for op, ns in predicted(prices, d.costs) if op != "walk") / 1e6
        row = [d.design, format_bytes(d.bytes_live), format_bytes(d.bytes_in_slabs), f"{d.bytes_per_page:,.1f}"]
        row += [format_count(int(_steps(d))), f"{ms:,.2f}", format_count(d.vmas)]
        row.append("yes" if d.correctness.equal else "NO")
        by_label = {walk.label: walk for walk in d.walks}
        for label in walks:
            walk = by_label.get(label)
            if walk is None:
                row += ["-"] * 3
            else:
                row += [f"{walk.looked_at:,.2f}", f"{walk.in_vain:,.2f}", format_count(walk.worst)]
        rows.append(row)
    cells = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    header = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return f'<div class=scroll><table><tr>{header}</tr>{"".join(f"<tr>{row}</tr>" for row in cells)}</table></div>'


def _foot(prices: UnitCosts) -> Iterator[str]:
    yield "</main><footer><h2>Prices of the prediction</h2>"
    yield f"<p class=dim>{escape(prices.machine)}. No caches, no contended locks and no luck are in a prediction.</p>"
    yield '<div class="scroll"><table><tr><th>step</th><th>ns</th><th style="text-align:left">from</th></tr>'
    for name, cost in prices.of.items():
        yield (
            f"<tr><td>{escape(name)}</td><td>{cost.ns:g}</td>"
            f'<td style="text-align:left;white-space:normal">{escape(cost.how)}</td></tr>'
        )
    yield "</table></div></footer>"


def _anchor(run: ReportRun) -> str:
    return f"w-{run.workload.name}"
