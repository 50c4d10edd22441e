"""offset: is a page at the same offset from ``vm_start`` in every VMA that maps it? (Rules 1.3, 2.12, 5.3; part 7.)"""

from __future__ import annotations

from rmap.lab.explain.stage import START, StoryStage, pages
from rmap.lab.results import Story

QUESTION = "Is a page at the same offset from vm_start in every VMA that maps it?"

SAME_IN_BOTH = (
    "What never changes is the page's index. vm_start and vm_pgoff move together, so vma_address() stays right while"
    " the offset does not."
)
CHAINS_DO_NOT_CARE = (
    "A chain stores where each entry is, not how to compute it: neither offset nor index is ever asked for. What does"
    " not change is the entry."
)
LIVE = "The same on the running kernel: sudo rmap explain offset --live"


def tell(stage: StoryStage) -> Story:
    """Two pages, a fork, and an munmap of the first page in the child."""
    second = START + pages(1)
    stage.step("parent: mmap 2 pages, write both")
    parent = stage.spawn("parent")
    parent.mmap(pages(2), addr=START)
    parent.write(START, pages(2))
    page = stage.pfn(parent, second)
    stage.vma(parent, second)
    stage.page("B", parent, second)
    index, offset = stage.index(page), stage.offset(parent, second)

    stage.step("fork; the child unmaps the first page")
    child = stage.fork(parent, "child")
    child.munmap(START, pages(1))
    stage.vma(child, second)
    stage.page("B", child, second)
    stage.claim(stage.pfn(child, second) == page)
    stage.claim(stage.index(page) == index)
    stage.claim(stage.offset(child, second) != offset == stage.offset(parent, second))

    stage.step("the walk from page B" + (", along its chain" if stage.by_entry else ", through what it hangs on"))
    looked = stage.walk(page)
    stage.claim(len(looked) == 2)
    return stage.story("offset", f"{QUESTION} No.", (CHAINS_DO_NOT_CARE if stage.by_entry else SAME_IN_BOTH, LIVE))
