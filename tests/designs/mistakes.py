"""A mistake that more than one design is given."""

from __future__ import annotations

from typing import Any

from rmap.mm.costs import NODES_VISITED


class VisitsUncounted:
    """Put before a design: the nodes that its walk visits are not counted."""

    def candidates1(self, pfn: int) -> Any:
        design: Any = self
        counters = design.core.costs.current
        before = counters[NODES_VISITED]
        for candidate in super().candidates1(pfn):  # type: ignore[misc]
            counters[NODES_VISITED] = before
            yield candidate
