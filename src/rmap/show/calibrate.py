"""What was measured of this machine's kernel, and the price list that follows."""

from __future__ import annotations

from collections.abc import Sequence

from rmap.lab.compare.calibrate import Measured
from rmap.lab.compare.unit_costs import UnitCosts
from rmap.show.text import columns, wrap


def calibrated(costs: UnitCosts, measured: Sequence[Measured]) -> list[str]:
    """The lines of ``rmap calibrate``."""
    here = {m.name: m for m in measured}
    rows = []
    for name, cost in costs.of.items():
        m = here.get(name)
        spread = f"{m.low:,.0f} to {m.high:,.0f}" if m else ""
        rows.append((name, f"{cost.ns:,.0f}", spread, "measured here" if m else "default"))
    lines = columns(("PRICE OF", "ns", "spread", "from"), rows, "<>><")
    lines.append("")
    for m in measured:
        lines += wrap(f"{m.name}: {m.what}; the median of {m.rounds}.")
    lines += wrap(f"Machine: {costs.machine}.")
    return lines
