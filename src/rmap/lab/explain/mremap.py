"""mremap: what happens to a page when its area moves? (Rules 2.10, 2.13, 4.7.)"""

from __future__ import annotations

from rmap.lab.explain.stage import START, StoryStage, pages
from rmap.lab.results import Story

QUESTION = "What happens to a page when its area moves?"

BY_VMA = f"{QUESTION} Nothing: the VMA's vm_pgoff stays, so its index still fits."
BY_ENTRY = f"{QUESTION} Its chain is edited: the old entry leaves, the new one comes."
TARGET = 0x7E0000000000
EMPTY = 0x7D0000000000
EMPTY_TARGET = 0x7C0000000000


def tell(stage: StoryStage) -> Story:
    """A child moves what it shares with its parent; then it moves an area that was never written."""
    second = START + pages(1)
    stage.step("parent: mmap 2 pages, write both, fork")
    parent = stage.spawn("parent")
    parent.mmap(pages(2), addr=START)
    parent.write(START, pages(2))
    child = stage.fork(parent, "child")
    page = stage.pfn(parent, second)
    stage.vma(child, second)
    stage.page("B", child, second)
    index, pgoff = stage.index(page), stage.vma_of(child, second).pgoff

    stage.step("the child moves the area")
    child.mremap(START, pages(2), pages(2), TARGET)
    moved = TARGET + pages(1)
    stage.vma(child, moved)
    stage.page("B", child, moved)
    stage.cost()
    stage.claim(stage.pfn(child, moved) == page)
    stage.claim(stage.index(page) == index and stage.vma_of(child, moved).pgoff == pgoff)
    stage.claim(stage.written() == (2 if stage.by_entry else 0))

    stage.step("the walk from page B: one index, two addresses")
    looked = stage.walk(page)
    stage.claim({place.address for place in looked if place.hit} == {second, moved})

    stage.step("an area that was never written: mmap, then move")
    child.mmap(pages(2), addr=EMPTY)
    stage.vma(child, EMPTY)
    child.mremap(EMPTY, pages(2), pages(2), EMPTY_TARGET)
    stage.vma(child, EMPTY_TARGET)
    stage.claim(stage.vma_of(child, EMPTY_TARGET).pgoff == EMPTY_TARGET >> 12)
    rebased = (
        "An area without a page to remember its place is numbered anew, by its address: it can then merge with its"
        " new neighbours."
    )
    if stage.by_entry:
        closing = "A chain holds pointers to entries, so each moved entry is one removed and one added."
        return stage.story("mremap", BY_ENTRY, (closing, rebased))
    closing = (
        "Neither index nor mapping is touched by a move. vm_start changed and vm_pgoff did not, and from their"
        " difference the walk finds the new address."
    )
    return stage.story("mremap", BY_VMA, (closing, rebased))
