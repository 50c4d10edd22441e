"""Taking pages out of every address space, and looking afterwards whether they went.

The kernel has no call that unmaps a given page from everybody, and its calls that do something like it answer with
success whether or not a page went: they skip what is shared, locked, dirty. So nothing is believed here. What was in
memory and what is afterwards is read from the page cache and the page tables, twice: a page that is back within a tenth
of a second was used.

Means that touch the named pages alone:

* ``posix_fadvise(DONTNEED)``, for pages of a file that nobody maps, dirty ones written first; with the rest of their
  large folios, as the kernel drops these whole or not at all;
* ``process_madvise(MADV_PAGEOUT)``, for pages with one mapper: it skips shared ones (``folio_maybe_mapped_shared``,
  mm/madvise.c).

And if it is allowed, the whole memory cgroup that the pages are charged to: memory.reclaim (v2), memory.force_empty
(v1). That pushes out other memory of it, too. Reclaim of a whole node, drop_caches and DAMON are never used: they are
everybody's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rmap.columns import I64, runs
from rmap.errors import SourceError
from rmap.live import cgroups, procfs
from rmap.live.evict_target import FileTarget, PageTarget, Seen
from rmap.live.syscalls import MADV_PAGEOUT, process_madvise
from rmap.units import PAGE_SHIFT, PAGE_SIZE, format_bytes

Target = FileTarget | PageTarget
Say = Callable[[str], None]

_COMES_BACK = 0.1  # seconds
_ROOT = "pages are charged to the root cgroup, or to none: its memory is everybody's"


@dataclass(frozen=True)
class Attempt:
    """One means that was used.

    Attributes:
        means: its name.
        went: pages of those named that were gone after it.
        remark: what the kernel answered, or why it could do nothing.
    """

    means: str
    went: int
    remark: str = ""


@dataclass
class Evicted:
    """What was done, and what came of it.

    Attributes:
        name: what was to go, in words.
        pages: of how many pages it is.
        before, after: what was in memory and mapped.
        tried: in order. not_used: means and why.
        came_back: pages that were gone and are there again.
        neighbours: other pages of the same large folios that went along.
        stays: why pages stayed, in words.
        dry: nothing was done.
    """

    name: str
    pages: int
    before: Seen
    after: Seen
    tried: list[Attempt] = field(default_factory=list)
    not_used: list[tuple[str, str]] = field(default_factory=list)
    came_back: int = 0
    neighbours: int = 0
    stays: list[str] = field(default_factory=list)
    dry: bool = False

    @property
    def all_gone(self) -> bool:
        """Whether nothing of it is left."""
        return self.after.resident == 0


def evict(target: Target, *, whole_cgroup: bool = False, dry: bool = False, say: Say = lambda doing: None) -> Evicted:
    """Push pages out, by the gentlest means that work.

    Args:
        target: what is to go.
        whole_cgroup: also push out everything else of the cgroup that the pages are charged to.
        dry: only say what would be done.
        say: told what is being done.
    """
    before = target.look()
    done = Evicted(target.name, target.pages, before, before, dry=dry)
    if not before.resident:
        return done
    done.stays = target.refusals()
    if not done.stays:
        around = target.around()
        for means in (_fadvise, _pageout):
            if target.look().resident or dry:
                means(target, done, say)
        _cgroup(target, done, whole_cgroup, say)
        if not dry:
            _look_again(target, done, around)
    return done


def _look_again(target: Target, done: Evicted, around: int) -> None:
    gone = target.look()
    time.sleep(_COMES_BACK)
    done.after = target.look()
    done.came_back = max(0, done.after.resident - gone.resident)
    done.neighbours = max(0, around - target.around()) if gone.resident < done.before.resident else 0
    if done.after.resident:
        done.stays = target.reasons(done.after)


def _tried(target: Target, done: Evicted, means: str, before: int, remark: str) -> None:
    done.tried.append(Attempt(means, max(0, before - target.look().resident), remark))


def _fadvise(target: Target, done: Evicted, say: Say) -> None:
    means = "fadvise DONTNEED"
    if isinstance(target, PageTarget):
        return
    unmapped = target.unmapped()
    if not len(unmapped):
        done.not_used.append((means, "every page is mapped, and the kernel skips mapped pages"))
        return
    if done.dry:
        done.tried.append(Attempt(means, 0, f"would be asked for {len(unmapped):,} pages that nobody maps"))
        return
    say(means)
    before = target.look().resident
    os.fdatasync(target.fd)  # what is dirty would stay
    _drop(target, unmapped)
    rest = target.look().resident
    remark = "the kernel skips mapped pages" if rest and before - rest < before else ""
    _tried(target, done, means, before, remark)


def _pageout(target: Target, done: Evicted, say: Say) -> None:
    means = "process_madvise PAGEOUT"
    places = target.single_mappers()
    if not places:
        if target.look().ptes or done.dry:
            done.not_used.append((means, "no page of it has exactly one mapper, and the kernel skips shared pages"))
        return
    pages = sum(length for ranges in places.values() for _, length in ranges) // PAGE_SIZE
    if done.dry:
        done.tried.append(Attempt(means, 0, f"would be asked for {pages:,} pages that one process maps"))
        return
    say(means)
    before = target.look().resident
    answered, refused = 0, ""
    for pid, ranges in places.items():
        try:
            answered += process_madvise(pid, ranges, MADV_PAGEOUT)
        except OSError as error:
            refused = f"{error.strerror} for process {pid}"
    _fadvise_after(target)
    remark = refused or f"the kernel answered {format_bytes(answered)} done, in {len(places):,} processes"
    _tried(target, done, means, before, remark)


# What is unmapped now, and still in the page cache.
def _fadvise_after(target: Target) -> None:
    if isinstance(target, FileTarget):
        _drop(target, target.unmapped())


def _drop(target: FileTarget, pages: I64) -> None:
    first, count = runs(target.with_folios(pages))
    for page, number in zip(first.tolist(), count.tolist()):
        os.posix_fadvise(target.fd, page << PAGE_SHIFT, number << PAGE_SHIFT, os.POSIX_FADV_DONTNEED)


def _cgroup(target: Target, done: Evicted, allowed: bool, say: Say) -> None:
    seen = done.before if done.dry else target.look()
    if not seen.resident:
        return
    charged = target.charged()
    try:
        known = cgroups.by_inode(set(charged) - {0})
    except SourceError as error:
        done.not_used.append(("memory cgroup", str(error)))
        return
    mine = target.cgroups()
    for inode, pages in sorted(charged.items(), key=lambda pair: -pair[1]):
        group = known.get(inode)
        if group is None or group.is_root:
            done.not_used.append(("memory cgroup", f"{pages:,} {_ROOT}"))
            continue
        other = max(0, group.usage() - pages * PAGE_SIZE)
        if mine and not any(path == group.path or path.startswith(group.path + "/") for path in mine):
            reason = f"{pages:,} pages are charged to cgroup {group.path}, which none of their mappers is in"
            done.not_used.append((group.means, reason))
        elif not allowed:
            reason = (
                f"pages are charged to cgroup {group.path}; it would also push out {format_bytes(other)} of other "
                "memory there (allow it: --whole-cgroup)"
            )
            done.not_used.append((group.means, reason))
        elif done.dry:
            done.tried.append(Attempt(group.means, 0, f"of {group.path}, with {format_bytes(other)} of other memory"))
        else:
            say(f"{group.means} of {group.path}")
            before = target.look().resident
            answer = group.push_out()
            remark = f"of {group.path}, with {format_bytes(other)} of other memory" + (f": {answer}" if answer else "")
            _tried(target, done, group.means, before, remark)


def has_swap() -> bool:
    """Whether anonymous and shared memory has anywhere to go."""
    return procfs.nr_swap_areas() > 0


__all__ = ["Attempt", "Evicted", "FileTarget", "PageTarget", "evict", "has_swap"]
