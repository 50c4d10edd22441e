"""Who shares memory with whom: a matrix where it fits, else the pairs that share most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rmap.show.text import columns, more
from rmap.units import format_bytes

if TYPE_CHECKING:
    from rmap.snapshot.questions.sharing import Sharing

Names = Sequence[tuple[int, str]]
"""Pid and command of each process, by row of the picture."""


def shared_data(sharing: Sharing, names: Names) -> dict[str, Any]:
    """The object that ``rmap share --json`` prints, without its schema number."""
    return {
        "processes": [
            {
                "pid": names[row][0],
                "comm": names[row][1],
                "maps": _own(sharing, at),
                "alone": int(sharing.alone[at]),
                "shares": [
                    {"pid": names[other][0], "comm": names[other][1], "bytes": int(sharing.shared[at, column])}
                    for column, other in enumerate(sharing.columns.tolist())
                    if other != row and sharing.shared[at, column]
                ],
            }
            for at, row in enumerate(sharing.rows.tolist())
        ]
    }


def share(sharing: Sharing, names: Names, *, matrix: int, limit: int | None) -> list[str]:
    """The lines of ``rmap share``.

    Args:
        matrix: up to so many columns are a matrix.
        limit: list at most so many pairs, None for all.
    """
    if 1 < len(sharing.columns) <= matrix and len(sharing.rows) > 1:
        return [*_matrix(sharing, names), "", "of a process with itself: all that it maps, each frame once"]
    own = [
        (str(names[row][0]), names[row][1], format_bytes(_own(sharing, at)), format_bytes(int(sharing.alone[at])))
        for at, row in enumerate(sharing.rows.tolist())
    ]
    lines = columns(("PID", "COMMAND", "MAPS", "ALONE"), own[:limit], "><>>")
    if limit is not None and len(own) > limit:
        lines.append(more(len(own) - limit, "--all"))
    pairs = _pairs(sharing, names)
    if not pairs:
        return [*lines, "", "They share nothing." if len(own) > 1 else "It shares nothing with anybody."]
    cells = [(format_bytes(n), str(a[0]), a[1], str(b[0]), b[1]) for n, a, b in pairs[:limit]]
    lines += ["", *columns(("SHARED", "PID", "COMMAND", "PID", "COMMAND"), cells, ">><><")]
    if limit is not None and len(pairs) > limit:
        lines.append(more(len(pairs) - limit, "--all"))
    return lines


def _own(sharing: Sharing, at: int) -> int:
    column = sharing.columns.tolist().index(int(sharing.rows[at]))
    return int(sharing.shared[at, column])


def _matrix(sharing: Sharing, names: Names) -> list[str]:
    header = ("PID", "COMMAND", *(str(names[row][0]) for row in sharing.columns.tolist()), "ALONE")
    rows = [
        (
            str(names[row][0]),
            names[row][1],
            *(format_bytes(n) for n in sharing.shared[at].tolist()),
            format_bytes(int(sharing.alone[at])),
        )
        for at, row in enumerate(sharing.rows.tolist())
    ]
    return columns(header, rows, "><" + ">" * (len(header) - 2))


def _pairs(sharing: Sharing, names: Names) -> list[tuple[int, tuple[int, str], tuple[int, str]]]:
    # Each pair once, the largest first.
    asked = set(sharing.rows.tolist())
    pairs = []
    for at, row in enumerate(sharing.rows.tolist()):
        for column, other in enumerate(sharing.columns.tolist()):
            n = int(sharing.shared[at, column])
            if n and other != row and (other not in asked or row < other):
                pairs.append((n, names[row], names[other]))
    return sorted(pairs, key=lambda pair: (-pair[0], pair[1][0], pair[2][0]))
