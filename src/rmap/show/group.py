"""Groups of processes and their memory: a table, and what its columns mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rmap.show.text import WIDTH, columns, more
from rmap.units import format_bytes, format_count

if TYPE_CHECKING:
    from rmap.snapshot.questions.groups import Group

_HEADER = ("GROUP", "PROCS", "SUM RSS", "EACH ONCE", "ONLY HERE", "SUM PSS", "SWAP")
_LEGEND = [
    "EACH ONCE  frames the group maps, every frame counted once",
    "ONLY HERE  frames that nobody outside the group maps: what a sum of PSS hides",
    "           ONLY HERE <= SUM PSS <= EACH ONCE <= SUM RSS",
]
_NAME = 16


def sorted_groups(groups: Sequence[Group], column: str) -> list[Group]:
    """By a column as the user types it: sizes and counts descending, names ascending."""
    if column == "name":
        return sorted(groups, key=lambda group: group.name)
    if column == "procs":
        return sorted(groups, key=lambda group: (-len(group.pids), group.name))
    return sorted(groups, key=lambda group: (-getattr(group, column.replace("-", "_")), group.name))


def group(groups: Sequence[Group], *, names: Mapping[str, str], limit: int | None) -> list[str]:
    """The table.

    Args:
        names: other names for some groups: of users.
        limit: show at most so many rows, None for all.
    """
    shown = groups[:limit]
    rows = [
        (
            "",
            format_count(len(one.pids)),
            *(format_bytes(n) for n in (one.sum_rss, one.each_once, one.only_here, one.sum_pss, one.swap)),
        )
        for one in shown
    ]
    width = max(_NAME, WIDTH - max(map(len, columns(_HEADER, rows, "<>>>>>>"))) + len(_HEADER[0]))
    named = [(_short(names.get(one.name, one.name), width), *row[1:]) for one, row in zip(shown, rows)]
    lines = columns(_HEADER, named, "<>>>>>>")
    if len(shown) < len(groups):
        lines.append(more(len(groups) - len(shown), "--all"))
    return [*lines, "", *_LEGEND]


def _short(name: str, width: int) -> str:
    # The end of a path says more than its beginning.
    return name if len(name) <= width else "..." + name[len(name) - width + 3 :]
