"""Fork families: benchmarks and servers in which children share what a parent made, and rewrite a part.

AIM7 is what broke anon_vma: a thousand children that have all rewritten a thousand pages hang their million private
pages on one object, and each page's walk asks a thousand VMAs.
"""

from __future__ import annotations

import numpy as np

from rmap.kernel import Kernel, Process
from rmap.lab.workloads.base import (
    Parameter,
    Sample,
    Size,
    Steps,
    places,
    random_runs,
    share_of,
    tables_for,
    write_runs,
)
from rmap.lab.workloads.published import Dimension, published
from rmap.units import PAGE_SIZE


def family(kernel: Kernel, *, children: int, pages: int, rewrite: float, parents: float, seed: int) -> Steps:
    """A parent writes ``pages`` and forks ``children``; each rewrites a share, then the parent rewrites one too."""
    rng = np.random.default_rng(seed)
    yield f"the parent writes {pages:,} pages"
    parent = kernel.spawn()
    heap = parent.mmap(pages * PAGE_SIZE)
    parent.write(heap, pages * PAGE_SIZE)
    rewritten: list[tuple[Process, int, int]] = []
    for number in range(1, children + 1):
        yield f"child {number:,} of {children:,}"
        child = parent.fork()
        runs = random_runs(rng, pages, share_of(pages, rewrite))
        write_runs(child, heap, runs)
        rewritten += places(child, heap, runs)
    if parents:
        yield "the parent rewrites its share"
        write_runs(parent, heap, random_runs(rng, pages, share_of(pages, parents)))
    samples = [Sample("a page of the parent", ((parent, heap, pages),))]
    if rewritten:
        samples.append(Sample("a page of a child", tuple(rewritten)))
    return tuple(samples)


def family_size(children: int, pages: int, rewrite: float, parents: float) -> Size:
    """What it needs."""
    return Size(
        frames=pages + children * share_of(pages, rewrite) + share_of(pages, parents) + 64,
        ptes=(children + 1) * pages,
        tables=(children + 1) * tables_for(pages),
        vmas=children + 1,
    )


def reaped(kernel: Kernel, *, children: int, pages: int, seed: int) -> Steps:
    """All children live at once, touch nothing, and end in the order of their birth."""
    yield f"the parent writes {pages:,} pages"
    parent = kernel.spawn()
    heap = parent.mmap(pages * PAGE_SIZE)
    parent.write(heap, pages * PAGE_SIZE)
    alive = []
    for number in range(1, children + 1):
        yield f"fork {number:,} of {children:,}"
        alive.append(parent.fork())
    for number, child in enumerate(alive, 1):
        yield f"child {number:,} of {children:,} ends"
        child.exit()
    return (Sample("a page of the parent", ((parent, heap, pages),)),)


def reaped_size(children: int, pages: int) -> Size:
    """What it needs."""
    return Size(pages + 64, (children + 1) * pages, (children + 1) * tables_for(pages), children + 1)


def moved(kernel: Kernel, *, children: int, pages: int, areas: int, seed: int) -> Steps:
    """Each child moves every other of the areas that it inherited."""
    yield f"the parent writes {areas:,} areas of {pages:,} pages"
    parent = kernel.spawn()
    step = (pages + 1) * PAGE_SIZE
    base = parent.mmap(2 * areas * step, "")
    for area in range(areas):
        parent.mmap(pages * PAGE_SIZE, addr=base + area * step)
        parent.write(base + area * step, pages * PAGE_SIZE)
    stayed: list[tuple[Process, int, int]] = [(parent, base + area * step, pages) for area in range(1, areas, 2)]
    gone: list[tuple[Process, int, int]] = []
    for number in range(1, children + 1):
        yield f"child {number:,} of {children:,} moves its areas"
        child = parent.fork()
        for area in range(0, areas, 2):
            target = base + (areas + area) * step
            child.mremap(base + area * step, pages * PAGE_SIZE, pages * PAGE_SIZE, addr=target)
            gone.append((child, target, pages))
    samples = [Sample("a page that was moved", tuple(gone))]
    return (*samples, Sample("a page that stayed", tuple(stayed))) if stayed else tuple(samples)


def moved_size(children: int, pages: int, areas: int) -> Size:
    """What it needs; under some designs every page that moves is copied."""
    mapped = areas * pages
    return Size(
        frames=(children + 1) * mapped + 64,
        ptes=(children + 1) * mapped,
        tables=(children + 1) * 2 * tables_for(2 * areas * (pages + 1)),
        vmas=(children + 1) * (2 * areas + 2),
    )


REWRITE = Parameter("rewrite", 1.0, "share", "of the pages, that each child rewrites")
PARENTS = Parameter("parents", 0.0, "share", "of the pages, that the parent rewrites in the end")


def _rewrite(children: float, parent: float = 0.0) -> tuple[Parameter, Parameter]:
    return (
        Parameter("rewrite", children, "share", REWRITE.help),
        Parameter("parents", parent, "share", PARENTS.help),
    )


WORKLOADS = (
    published(
        "aim7",
        "A thousand children each rewrite the thousand pages that they inherited.",
        "Rik van Riel, 5beb49305251, 2010 (J22)",
        (Dimension("children", 1000, "children, all alive"), Dimension("pages", 1000, "pages of the parent")),
        family,
        family_size,
        shows=("fork", "COW"),
        scale=0.1,
        others=_rewrite(1.0),
        theme="fork families",
    ),
    published(
        "apache-prefork",
        "300 workers inherit a server's heap and rewrite a third of it.",
        "Rik van Riel's example against object-based reverse mapping, February 2003",
        (Dimension("children", 300, "workers, all alive"), Dimension("pages", 4096, "pages of the heap (16 MiB)")),
        family,
        family_size,
        shows=("fork", "COW"),
        scale=0.1,
        others=_rewrite(0.3),
        theme="fork families",
    ),
    published(
        "redis-bgsave",
        "One child saves a large heap, while the parent rewrites a quarter of it.",
        "Redis' background save; 1 to 64 GiB, here 1",
        (
            Dimension("children", 1, "children", scales=False),
            Dimension("pages", 262_144, "pages of the heap (1 GiB)"),
        ),
        family,
        family_size,
        shows=("fork", "COW"),
        scale=0.1,
        others=_rewrite(0.0, 0.25),
        theme="fork families",
    ),
    published(
        "kvm-rmap-fork",
        "500 children are forked, and reaped in the order of their birth.",
        "Peter Xu's test of KVM's reverse map, June 2021 (J28): there the guest's fork made the lists long",
        (Dimension("children", 500, "children, all alive at once"), Dimension("pages", 2048, "pages of the parent")),
        reaped,
        reaped_size,
        shows=("fork", "exit"),
        scale=0.1,
        theme="fork families",
    ),
    published(
        "mremap-after-fork",
        "Each child moves half of the areas that it inherited.",
        "the case for which anonmm copies and LegoOS copies (Hugh Dickins, Linus Torvalds, March 2004)",
        (
            Dimension("children", 100, "children, all alive"),
            Dimension("pages", 64, "pages of an area"),
            Dimension("areas", 20, "areas of the parent", least=2),
        ),
        moved,
        moved_size,
        shows=("fork", "mremap"),
        scale=0.2,
        theme="fork families",
    ),
)
