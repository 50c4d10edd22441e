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


def freed(found: Freed, *, asked: Sequence[int], names: Mapping[int, str], cgroup: str | None) -> list[str]:
    """The lines of ``rmap freed``.

    Args:
        asked: the pids on the command line.
        names: command of each process.
        cgroup: the cgroup that was asked for, if one was.
    """
    lines = [_title(found, asked, names, cgroup), "", _line("  comes back", found.comes_back)]
    lines += [
        _line("    anonymous", found.anonymous),
        _line("    page tables", found.page_tables) if found.page_tables >= 0 else "    page tables        unknown",
        _line("    shared memory", found.shared),
        *([_line("    deleted files", found.deleted)] if found.deleted else []),
        *([_line("    and of swap", found.swap)] if found.swap else []),
        _line("  stays", found.stays),
        *_stays("page cache", "droppable", found.cache),
        *_held(found.held),
        *_stays("mapped by others", "", found.others),
        *([_line("    in large folios", found.folios) + "  that others map in part"] if found.folios else []),
    ]
    lines += ["", "Not counted: kernel stacks, sockets and slab of these processes."]
    if found.raced:
        size = format_bytes(found.raced * PAGE_SIZE)
        lines += wrap(f"{plural(found.raced, 'page')} ({size}) changed while being read: counted as last seen.")
    return lines


def _title(found: Freed, asked: Sequence[int], names: Mapping[int, str], cgroup: str | None) -> str:
    n = len(found.pids)
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
