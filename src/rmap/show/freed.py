"""What comes back and what stays: two sums, and what each is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rmap.show.text import WIDTH, plural, wrap
from rmap.units import PAGE_SIZE, format_bytes, format_count

if TYPE_CHECKING:
    from rmap.snapshot.questions.freed import Freed, Held

_NAMED = 3
_SIZE = 10


def freed(sums: Freed, *, asked: Sequence[int], names: Mapping[int, str], cgroup: str | None) -> list[str]:
    """The lines of ``rmap freed``.

    Args:
        asked: the pids on the command line.
        names: command of each process.
        cgroup: the cgroup that was asked for, if one was.
    """
    lines = [_title(sums, asked, names, cgroup), "", _line("  comes back", sums.comes_back)]
    lines += [
        _line("    anonymous", sums.anonymous),
        _line("    page tables", sums.page_tables) if sums.page_tables >= 0 else "    page tables        unknown",
        _line("    shared memory", sums.shared),
        *([_line("    deleted files", sums.deleted)] if sums.deleted else []),
        *([_line("    and of swap", sums.swap)] if sums.swap else []),
        _line("  stays", sums.stays),
        *_stays("page cache", "droppable", sums.cache),
        *_held(sums.held),
        *_stays("mapped by others", "", sums.others),
        *([_line("    in large folios", sums.folios) + "  that others map in part"] if sums.folios else []),
    ]
    lines += ["", "Not counted: kernel stacks, sockets and slab of these processes."]
    if sums.raced:
        size = format_bytes(sums.raced * PAGE_SIZE)
        lines += wrap(f"{plural(sums.raced, 'page')} ({size}) changed while being read: counted as last seen.")
    return lines


def _title(sums: Freed, asked: Sequence[int], names: Mapping[int, str], cgroup: str | None) -> str:
    n = len(sums.pids)
    if cgroup is not None:
        return f"If {plural(n, 'process', 'processes')} of {cgroup} end:"
    first = f"{asked[0]} {names.get(asked[0], '')}".rstrip()
    if n == 1:
        return f"If process {first} ends:"
    if len(asked) == 1:
        return f"If {format_count(n)} processes end ({first} and its {plural(n - 1, 'descendant')}):"
    return f"If {format_count(n)} processes end:"


def _line(label: str, size: int) -> str:
    return f"{label:<22}{format_bytes(size):>{_SIZE}}"


def _stays(label: str, how: str, items: Sequence[Held]) -> list[str]:
    if not items:
        return []
    head = _line(f"    {label}", sum(item.bytes for item in items)) + (f"  {how}" if how else "")
    return _behind(head + "  ", _list(items))


def _held(items: Sequence[Held]) -> list[str]:
    lines = []
    for item in items[: _NAMED * 2]:
        lines += _behind(_line("    shared memory", item.bytes) + "  held  ", f"{item.path}, {item.why}")
    rest = items[_NAMED * 2 :]
    if rest:
        lines.append(_line("    shared memory", sum(item.bytes for item in rest)) + f"  held  {len(rest)} more")
    return lines


def _list(items: Sequence[Held]) -> str:
    named = ", ".join(item.path.rsplit("/", 1)[-1] if len(items) > 1 else item.path for item in items[:_NAMED])
    return named + (f", {len(items) - _NAMED} more" if len(items) > _NAMED else "")


def _behind(head: str, text: str) -> list[str]:
    return wrap(text, head, " " * min(len(head), WIDTH - 40))
