"""The worst case of each design: what its critics showed, or what its cost model says.

Each is aimed at one design, and is run under all: what is bad for one is often nothing to another. The figure it should
reach is in its summary.
"""

from __future__ import annotations

from collections.abc import Callable

from rmap.kernel import Kernel, Process
from rmap.lab.workloads.base import Parameter, Sample, Size, Steps, Workload, tables_for
from rmap.units import PAGE_SIZE

PROCESSES = Parameter("processes", 50, "count", "processes", 2, 5_000)
PAGES = Parameter("pages", 256, "count", "pages", 1, 1 << 20)


def one_among_many(kernel: Kernel, *, processes: int, pages: int, seed: int) -> Steps:
    """Everybody maps a large segment; one page of the last process is looked for."""
    file = kernel.open("/dev/shm/segment", pages * PAGE_SIZE)
    file.read_in()
    process = kernel.spawn()
    for number in range(1, processes + 1):
        yield f"process {number:,} of {processes:,}"
        process = kernel.spawn()
        base = process.mmap(pages * PAGE_SIZE, flags="shared", file=file)
        process.read(base, pages * PAGE_SIZE)
    own = process.mmap(PAGE_SIZE)
    process.write(own, PAGE_SIZE)
    return (Sample("the last process's own page", ((process, own, 1),)),)


def fifo_exit(kernel: Kernel, *, processes: int, pages: int, seed: int) -> Steps:
    """All share the parent's pages, and the oldest ends first, again and again."""
    parent = kernel.spawn()
    heap = parent.mmap(pages * PAGE_SIZE)
    parent.write(heap, pages * PAGE_SIZE)
    alive = [parent]
    for number in range(2, processes + 1):
        yield f"fork {number:,} of {processes:,}"
        alive.append(parent.fork())
    while len(alive) > processes // 2 + 1:
        yield f"{len(alive):,} are left"
        alive.pop(0).exit()
    return (Sample("a shared page", ((alive[0], heap, pages),)),)


def youngest_unmaps(kernel: Kernel, *, processes: int, pages: int, seed: int) -> Steps:
    """All share the parent's pages, and the youngest half unmaps them."""
    parent = kernel.spawn()
    heap = parent.mmap(pages * PAGE_SIZE)
    parent.write(heap, pages * PAGE_SIZE)
    family = [parent]
    for number in range(2, processes + 1):
        yield f"fork {number:,} of {processes:,}"
        family.append(parent.fork())
    for child in reversed(family[processes // 2 :]):
        child.munmap(heap, pages * PAGE_SIZE)
    return (Sample("a shared page", ((parent, heap, pages),)),)


def disjoint_windows(kernel: Kernel, *, processes: int, pages: int, seed: int) -> Steps:
    """Each process maps every page of a file by itself, with a hole behind it."""
    file = kernel.open("/srv/windows", 2 * pages * PAGE_SIZE)
    file.read_in()
    places: list[tuple[Process, int, int]] = []
    for number in range(1, processes + 1):
        yield f"process {number:,} of {processes:,}"
        process = kernel.spawn()
        base = process.mmap(2 * pages * PAGE_SIZE, "")
        for page in range(pages):
            at = base + 2 * page * PAGE_SIZE
            process.mmap(PAGE_SIZE, flags="shared", file=file, offset=2 * page * PAGE_SIZE, addr=at)
        process.read(base, PAGE_SIZE)
        places.append((process, base, 1))
    return (Sample("the first page of the file", tuple(places)),)


def same_window(kernel: Kernel, *, processes: int, pages: int, seed: int) -> Steps:
    """All map the same large window, and one only touches it: no tree leaves any of them out."""
    file = kernel.open("/srv/window", pages * PAGE_SIZE)
    file.read_in()
    first = kernel.spawn()
    base = 0
    process = first
    for number in range(1, processes + 1):
        yield f"process {number:,} of {processes:,}"
        process = first if number == 1 else kernel.spawn()
        base = process.mmap(pages * PAGE_SIZE, flags="shared", file=file)
    process.read(base, PAGE_SIZE)
    return (Sample("a page that one of them touched", ((process, base, 1),)),)


def late_survivor(kernel: Kernel, *, processes: int, pages: int, seed: int) -> Steps:
    """The parent's pages survive in the last child only: it, and everybody else, has rewritten all others."""
    parent = kernel.spawn()
    heap = parent.mmap(pages * PAGE_SIZE)
    parent.write(heap, pages * PAGE_SIZE)
    family = [parent]
    for number in range(2, processes + 1):
        yield f"fork {number:,} of {processes:,}"
        family.append(parent.fork())
    for number, member in enumerate(family[:-1], 1):
        yield f"process {number:,} of {processes:,} rewrites everything"
        member.write(heap, pages * PAGE_SIZE)
    return (Sample("an inherited page of the last child", ((family[-1], heap, pages),)),)


def fork_and_move(kernel: Kernel, *, processes: int, pages: int, seed: int) -> Steps:
    """Every child moves all that it inherited."""
    parent = kernel.spawn()
    heap = parent.mmap(pages * PAGE_SIZE)
    parent.write(heap, pages * PAGE_SIZE)
    places = []
    for number in range(2, processes + 1):
        yield f"child {number:,} of {processes:,}"
        child = parent.fork()
        target = heap - (pages + 512) * PAGE_SIZE
        child.mremap(heap, pages * PAGE_SIZE, pages * PAGE_SIZE, addr=target)
        places.append((child, target, pages))
    return (Sample("a page that was moved", tuple(places)),)


def siblings(kernel: Kernel, *, processes: int, pages: int, seed: int) -> Steps:
    """Every child has rewritten every page."""
    parent = kernel.spawn()
    heap = parent.mmap(pages * PAGE_SIZE)
    parent.write(heap, pages * PAGE_SIZE)
    places = []
    for number in range(2, processes + 1):
        yield f"child {number:,} of {processes:,}"
        child = parent.fork()
        child.write(heap, pages * PAGE_SIZE)
        places.append((child, heap, pages))
    return (Sample("a page of a child", tuple(places)),)


def living_line(kernel: Kernel, *, processes: int, pages: int, seed: int) -> Steps:
    """Each forks the next, and all live: every page of the first is in all of them."""
    process = kernel.spawn()
    heap = process.mmap(2 * pages * PAGE_SIZE)
    for page in range(pages):  # areas of a page, so that each has a chain
        process.mprotect(heap + 2 * page * PAGE_SIZE, PAGE_SIZE, "r")
        process.mprotect(heap + 2 * page * PAGE_SIZE, PAGE_SIZE, "rw" if page % 2 else "rwx")
    process.write(heap, 2 * pages * PAGE_SIZE)
    first = process
    for number in range(2, processes + 1):
        yield f"fork {number:,} of {processes:,}"
        process = process.fork()
        process.write(heap, PAGE_SIZE)
    return (Sample("a page of the first", ((first, heap + PAGE_SIZE, 2 * pages - 1),)),)


def moved_around(kernel: Kernel, *, processes: int, pages: int, seed: int) -> Steps:
    """A deep family, each of which has moved pieces of what it inherited: records by contexts."""
    process = kernel.spawn()
    step = 4 * PAGE_SIZE
    base = process.mmap(pages * step, "")
    for area in range(pages):
        process.mmap(PAGE_SIZE, addr=base + area * step)
        process.write(base + area * step, PAGE_SIZE)
    first = process
    for number in range(2, processes + 1):
        yield f"fork {number:,} of {processes:,}"
        process = process.fork()
        for area in range(number % 4, pages, 4):
            at = base + area * step
            if process.vma(at) is not None and process.vma(at + (number % 3 + 1) * PAGE_SIZE) is None:
                process.mremap(at, PAGE_SIZE, PAGE_SIZE, addr=at + (number % 3 + 1) * PAGE_SIZE)
    return (Sample("a page of the first", tuple((first, base + area * step, 1) for area in range(pages))),)


def split_and_merge(kernel: Kernel, *, processes: int, pages: int, seed: int) -> Steps:
    """One area that was never forked is split in half and merged again, over and over: its pages change hands."""
    process = kernel.spawn()
    heap = process.mmap(2 * pages * PAGE_SIZE)
    process.write(heap, 2 * pages * PAGE_SIZE)
    for number in range(1, processes + 1):
        yield f"split and merge {number:,} of {processes:,}"
        process.mprotect(heap, pages * PAGE_SIZE, "r")
        process.mprotect(heap, pages * PAGE_SIZE, "rw")
    return (Sample("a page of the area", ((process, heap, 2 * pages),)),)


def _size(processes: int, pages: int) -> Size:
    # A bound for all of them: every process may have a copy of everything.
    return Size(
        frames=(processes + 1) * 2 * pages + 256,
        ptes=(processes + 1) * (4 * pages + 16),
        tables=(processes + 1) * 3 * tables_for(4 * pages + 1024),
        vmas=(processes + 1) * (4 * pages + 4),
    )


def _worst(
    design: str, summary: str, run: Callable[..., Steps], shows: tuple[str, ...], processes: int = 50, pages: int = 256
) -> Workload:
    parameters = (
        Parameter("processes", processes, "count", PROCESSES.help, 2, 5_000),
        Parameter("pages", pages, "count", PAGES.help, 1, 1 << 20),
    )
    name = f"worst-{design.replace('_', '-')}"
    return Workload(name, summary, parameters, run, _size, shows, theme="worst cases")


WORKLOADS = (
    _worst("virtual_scan", "To free one page means to pass the entries of everybody: processes x pages.",
           one_among_many, ("fault",)),
    _worst("pte_chain", "Shared pages whose oldest mapper leaves first: each search passes the whole chain.",
           fifo_exit, ("fork", "exit")),
    _worst("lego_pcache", "Fork searches every line's list: n forks of a page look at n(n-1)/2 records.",
           fifo_exit, ("fork", "exit")),
    _worst("objrmap", "Disjoint windows of one file: every walk asks processes x pages VMAs.",
           disjoint_windows, ("fault",), 20, 100),
    _worst("objrmap_prio", "One window in all processes, touched by one: every walk asks them all.",
           same_window, ("fault",), 500, 16),
    _worst("anonmm", "Every child moves what it inherited: processes x pages are copied.",
           fork_and_move, ("fork", "mremap")),
    _worst("anon_vma", "Every child has rewritten every page: each walk asks every sibling.",
           siblings, ("fork", "COW")),
    _worst("anon_vma_chain", "A line of forks that all live: links grow with the square of its length.",
           living_line, ("fork", "COW"), 50, 8),
    _worst("cow_context", "A line of forks, each of which moved a part: every context's records are asked.",
           moved_around, ("fork", "mremap"), 40, 32),
    _worst("anon_vma_lazy", "One large area is split and merged: its pages are re-pointed each time.",
           split_and_merge, ("mprotect",), 50, 512),
    _worst("pv_chunk", "The youngest sharers unmap first: each search passes the whole list.",
           youngest_unmaps, ("fork", "unmap")),
    _worst("late-survivor", "A page that lives on in the last child only: anonmm tries every mm before it.",
           late_survivor, ("fork", "COW")),
)  # fmt: skip
