"""One picture under one design: load it, hold every walk against the oracle, put it through the script, measure.

The script is the same for every picture and design: every page is walked; each process forks once and the child exits;
one process in ten touches a new region and unmaps it; a tenth of the mapped pages is evicted through the design's
walk and faulted back. Then every walk is compared once more.
"""

from __future__ import annotations

import os

import numpy as np

from rmap.errors import SourceError
from rmap.kernel import Kernel, Process
from rmap.lab.compare.eviction import evict_a_tenth
from rmap.lab.compare.figures import Meter, follows_entries, memory_of
from rmap.lab.compare.sampling import REALLY_MAPPING
from rmap.lab.compare.workers import Answer, Say
from rmap.lab.correctness import correctness
from rmap.lab.results import Correctness, DesignResult, Figure, Subject
from rmap.mm.walk import walk_many
from rmap.snapshot import Snapshot, shipped
from rmap.units import PAGE_SHIFT, PAGE_SIZE

REGION_PAGES = 256
"""Pages of the new region that one process in ten touches."""

SHIPPED = "shipped: a forking web server and shells"


def run_snapshot(
    source: str | Snapshot, name: str, summary: str, profile: str, seed: int, design: str, say: Say
) -> Answer:
    """Load a picture and put it through the script.

    Args:
        source: a file, or the picture.
        name, summary: of the subject; without a summary, it tells where and when the picture was recorded.
        say: told each step.
    """
    say("loading the picture")
    snapshot = source if isinstance(source, Snapshot) else Snapshot.load(source)
    kernel = Kernel.adopt(snapshot, design, profile=profile)
    structures = kernel.metadata_bytes()
    vmas = _nr_vmas(kernel)
    say("comparing every walk with the page tables")
    loaded = correctness(kernel)
    subject = _subject(kernel, name, _summary(snapshot, summary), vmas, loaded, seed)
    rng = np.random.default_rng(seed)
    figures = _walk_all(kernel, say)
    fork, unmap = _fork_each(kernel, say)
    fault = _touch_new_regions(kernel, rng, say)
    eviction = evict_a_tenth(kernel, rng, say)
    say("comparing every walk with the page tables again")
    result = DesignResult(
        design=design,
        correctness=_worse(loaded, correctness(kernel)),
        memory=memory_of(structures),
        bytes_per_page=sum(structures.values()) / max(1, loaded.pages),
        figures=(*fault, *fork, *unmap, *figures),
        vmas=_nr_vmas(kernel),
        eviction=eviction,
        costs=kernel.costs.as_dict(),
        structures=structures,
    )
    return subject, result


def one_of_each_mm(kernel: Kernel) -> list[Process]:
    """The processes by pid; of those that share an mm, the first."""
    by_mm: dict[int, Process] = {}
    for _, process in sorted(kernel.processes.items()):
        by_mm.setdefault(process.mm.id, process)
    return list(by_mm.values())


def _nr_vmas(kernel: Kernel) -> int:
    return sum(len(mm.vmas) for mm in kernel.core.mms.values())


def _worse(before: Correctness, after: Correctness) -> Correctness:
    # The script must leave a design as right as it was; if it does not, that is the answer.
    return before if after.equal else after


def _walk_all(kernel: Kernel, say: Say) -> list[Figure]:
    pages = np.flatnonzero(kernel.core.frames.mapcount)
    say(f"walking {len(pages):,} pages")
    meter = Meter(kernel.costs)
    walk_many(kernel.core, pages)
    checked, in_vain = meter.get("walk", "ptes_checked"), meter.get("walk", "ptes_in_vain")
    n = max(1, len(pages))
    return [
        Figure("walk", "PTEs looked at per page", checked / n),
        Figure("walk", REALLY_MAPPING, (checked - in_vain) / n, part_of_above=True),
    ]


def _fork_each(kernel: Kernel, say: Say) -> tuple[list[Figure], list[Figure]]:
    # Each process forks once, the child exits at once.
    processes = one_of_each_mm(kernel)
    say(f"forking {len(processes):,} processes")
    meter = Meter(kernel.costs)
    for process in processes:
        process.fork().exit()
    ptes = max(1, meter.get("fork", "ptes_added"))
    objects = meter.get("fork", "objects_made")
    by_pte, by_vma = (objects, 0) if follows_entries(kernel) else (0, objects)
    fork = [
        Figure("fork", "entries written per PTE", meter.get("fork", "entries_written") / ptes),
        Figure("fork", "objects made per PTE", by_pte / ptes),
        Figure("fork", "objects made per VMA", by_vma / max(1, meter.get("fork", "vmas_forked"))),
    ]
    searched = meter.get("exit", "blocks_visited") / max(1, meter.get("exit", "ptes_removed"))
    return fork, [Figure("unmap", "blocks searched per PTE", searched)]


def _touch_new_regions(kernel: Kernel, rng: np.random.Generator, say: Say) -> list[Figure]:
    # One process in ten. The first page of a region is apart: what it costs more than others is paid once per VMA.
    processes = one_of_each_mm(kernel)
    chosen = np.sort(rng.permutation(len(processes))[: max(1, len(processes) // 10)]).tolist()
    say(f"touching and unmapping a new region in {len(chosen):,} processes")
    first_objects = rest_objects = entries = anchors = 0
    for process in (processes[i] for i in chosen):
        start = process.mmap(REGION_PAGES * PAGE_SIZE)
        meter = Meter(kernel.costs)
        process.write(start, PAGE_SIZE)
        first_objects += meter.get("fault", "objects_made")
        process.write(start + PAGE_SIZE, (REGION_PAGES - 1) * PAGE_SIZE)
        rest_objects += meter.get("fault", "objects_made")
        entries += meter.get("fault", "entries_written")
        anchors += _anchored(kernel, process, start)
        process.munmap(start, REGION_PAGES * PAGE_SIZE)
    rest_objects -= first_objects
    per_page = rest_objects / (len(chosen) * (REGION_PAGES - 1))
    return [
        _written_per_page(entries, anchors, len(chosen) * REGION_PAGES),
        Figure("fault", "objects made per page", per_page),
        Figure("fault", "objects made per new VMA", first_objects / len(chosen) - per_page),
    ]


def _anchored(kernel: Kernel, process: Process, start: int) -> int:
    # How many pages of the region hang on something: their mapping is set.
    pfns = [kernel.pfn(process, start + (i << PAGE_SHIFT)) or 0 for i in range(REGION_PAGES)]
    return int(np.count_nonzero(kernel.core.frames.anchor(np.array(pfns, np.int64))[0]))


def _written_per_page(entries: int, anchors: int, pages: int) -> Figure:
    unit = "words" if entries and anchors else "pointer" if entries else "mapping"
    written = entries + anchors
    return Figure("fault", "written per page", written / pages if written % pages else written // pages, unit)


def _subject(kernel: Kernel, name: str, summary: str, vmas: int, loaded: Correctness, seed: int) -> Subject:
    adoption = kernel.adoption
    assert adoption is not None
    left_out = tuple(f"left out: {n:,} entries of {what}" for what, n in adoption.left_out.items() if n)
    copied = (f"{adoption.copied:,} pages became private copies: they cannot be shared as seen",)
    outside = f"{adoption.unseen:,} pages have mappers outside the picture: their mapcount is what was found"
    unseen = (outside,) if adoption.unseen else ()
    return Subject(
        kind="picture",
        name=name,
        summary=summary,
        processes=len(one_of_each_mm(kernel)),
        vmas=vmas,
        pages=loaded.pages,
        ptes=loaded.ptes_total,
        seed=seed,
        inferred=(*adoption.inferred, *left_out, *(copied if adoption.copied else ()), *unseen),
    )


def _summary(snapshot: Snapshot, given: str) -> str:
    about = snapshot.about
    release = ".".join(about["release"].split(".")[:2])
    machine = f"Linux {release}" if release else "an unknown release"
    if given:
        return f"{given}, {machine}"
    host = f" on {about['host']}" if about["host"] else ""
    return f"recorded{host}{' at ' + about['time'] if about['time'] else ''}, {machine}"


def is_shipped(path: str) -> bool:
    """Whether a file is the picture that comes with the package."""
    try:
        return os.path.samefile(shipped(), path)
    except (SourceError, OSError):
        return False
