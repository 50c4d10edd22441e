"""From counted visits to a predicted time: what one visit costs, in nanoseconds.

A prediction, and nothing more: so many visits of each kind, at a price for each kind. It says which design a machine
would be slower under and by about what factor, not what a clock would show: caches, locks that are contended and
whatever else the machine does are not in it.

The defaults were measured on Linux 6.18 (2 CPUs, x86-64), or are put next to what was; ``rmap calibrate`` measures on
the machine at hand what can be measured from outside."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rmap.errors import SourceError

FILE = "unit-costs.json"


@dataclass(frozen=True, slots=True)
class UnitCost:
    """What one event costs.

    Attributes:
        ns: nanoseconds.
        how: where the figure is from.
        measured: whether it was measured, on some machine, rather than assumed.
    """

    ns: float
    how: str
    measured: bool = True


@dataclass(frozen=True, slots=True)
class UnitCosts:
    """A price list.

    Attributes:
        of: by counter.
        machine: where it was measured.
    """

    of: Mapping[str, UnitCost] = field(default_factory=dict)
    machine: str = ""

    def predict(self, counters: Mapping[str, int | float]) -> float:
        """The reverse map's share of the time, in ns, of an operation with these counts."""
        return sum(self.of[name].ns * n for name, n in counters.items() if name in self.of)


DEFAULTS = UnitCosts(
    {
        "descents": UnitCost(140, "one mapping in a walk: 125 to 160 ns at up to 100 mappers (force_empty, 6.18)"),
        "objects_made": UnitCost(330, "an anon_vma_chain: 320 to 450 ns each in a fork of 100 to 1,000 VMAs (6.18)"),
        "objects_freed": UnitCost(170, "half of making one; not measured apart", False),
        "pages_copied": UnitCost(2400, "a copy on write, all of it (6.18)"),
        "nodes_visited": UnitCost(15, "a step in a tree or a list, in cache; assumed", False),
        "blocks_visited": UnitCost(25, "a cache line of a chain; assumed", False),
        "entries_written": UnitCost(15, "a word in a cache line that is at hand; assumed", False),
        "vmas_looked_up": UnitCost(50, "find_vma; assumed", False),
        "ptes_in_vain": UnitCost(2, "an entry passed in a page table that is at hand; assumed", False),
        "locks_anon_vma": UnitCost(20, "an uncontended lock; assumed", False),
        "locks_i_mmap": UnitCost(20, "an uncontended lock; assumed", False),
        "locks_chain": UnitCost(8, "a bit lock, two atomic operations; assumed", False),
    },
    "Linux 6.18, x86-64, 2 CPUs",
)


def config_file() -> Path:
    """Where ``rmap calibrate`` keeps what it measured."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(base) / "rmap" / FILE


def load(path: str | os.PathLike[str] | None = None) -> UnitCosts:
    """The price list of a file; of the calibrated one if there is one, else the defaults.

    Raises:
        SourceError: the file named cannot be read, or is no price list.
    """
    source = Path(path) if path is not None else config_file()
    if path is None and not source.is_file():
        return DEFAULTS
    try:
        data = json.loads(source.read_text())
        given = {name: UnitCost(float(c["ns"]), str(c["how"]), bool(c["measured"])) for name, c in data["of"].items()}
        machine = str(data["machine"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{source} is no list of unit costs: {error}") from None
    unknown = set(given) - set(DEFAULTS.of)
    if unknown or any(not 0 <= cost.ns < 1e9 for cost in given.values()):
        raise SourceError(f"{source} has costs of what nobody counts, or impossible ones: {sorted(unknown or given)}")
    return UnitCosts({**DEFAULTS.of, **given}, machine)


def save(costs: UnitCosts, path: Path) -> None:
    """Write a price list; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(as_plain(costs), indent=2) + "\n")
    scratch.replace(path)


def as_plain(costs: UnitCosts) -> dict[str, Any]:
    """A price list as JSON has it."""
    return {
        "machine": costs.machine,
        "of": {name: {"ns": c.ns, "how": c.how, "measured": c.measured} for name, c in costs.of.items()},
    }


def with_measured(measured: Mapping[str, UnitCost], machine: str) -> UnitCosts:
    """The defaults, with what was measured in their place."""
    return replace(DEFAULTS, of={**DEFAULTS.of, **measured}, machine=machine)


def predicted(costs: UnitCosts, by_operation: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[str, float]]:
    """``(operation, ns)`` of everything that was counted, in all."""
    for operation, counters in by_operation.items():
        ns = costs.predict({name: n for name, n in counters.items() if name != "pages_copied"})
        ns += costs.of["pages_copied"].ns * counters.get("copies_asked", 0)
        if ns:
            yield operation, ns
