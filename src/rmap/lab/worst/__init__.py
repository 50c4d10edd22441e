"""Search for the short sequence of calls that is worst for a design, by a cost; and what its critics knew already."""

from __future__ import annotations

from rmap.lab.worst.search import COSTS, WorstFound, search

__all__ = ["COSTS", "WorstFound", "search"]
