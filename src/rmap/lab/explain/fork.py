"""fork: what does a fork write down? (Rules 2.4 to 2.8, 4.5; the example of rule 2.7.)"""

from __future__ import annotations

from rmap.kernel import Process
from rmap.lab.explain.stage import START, StoryStage, pages
from rmap.lab.results import Story

QUESTION = "What does a fork write down for the reverse map?"

BY_VMA = f"{QUESTION} Links from each VMA to its ancestors; nothing per page."
BY_ENTRY = f"{QUESTION} One more entry in the chain of every page."
NR_PAGES = 3


def tell(stage: StoryStage) -> Story:
    """A line of forks: parent, child, grandchild; the child exits, and the grandchild forks once more."""
    stage.step(f"parent: mmap {NR_PAGES} pages, write them")
    parent = stage.spawn("parent")
    parent.mmap(pages(NR_PAGES), addr=START)
    parent.write(START, pages(NR_PAGES))
    page = stage.pfn(parent, START)
    _show(stage, parent)
    hangs_on = stage.anchor(page)

    stage.step("the parent forks a child")
    child = stage.fork(parent, "child")
    _show(stage, child)
    first = (stage.written(), stage.made())
    of_child = stage.vma_of(child, START).anon

    stage.step("the child forks a grandchild")
    grandchild = stage.fork(child, "grand")
    _show(stage, grandchild)

    stage.step("the child exits")
    child.exit()
    stage.page("A", grandchild, START)
    stage.cost()

    stage.step("the grandchild forks again")
    last = stage.fork(grandchild, "last")
    _show(stage, last)
    links = stage.made()

    stage.step("the walk from page A")
    stage.walk(page)
    stage.claim(stage.mapcount(page) == 3)
    stage.claim(stage.anchor(page) == hangs_on)
    if stage.by_entry:
        stage.claim(first == (NR_PAGES, NR_PAGES))
        closing = (
            f"Each fork wrote {NR_PAGES} entries, one per page. The second mapping of a page needs its first block of"
            " 64 bytes; the block then has room for seven."
        )
        return stage.story("fork", BY_ENTRY, (closing,))
    stage.claim(first == (0, 3) and links == 3)
    stage.claim(stage.vma_of(last, START).anon is of_child)
    closing = (
        "A page stays on the anon_vma it was made in; only VMAs get links, one per ancestor and one of their own. The"
        " last child made no anon_vma: it took over the one of the child that is gone, so that lines of forks do not"
        " grow without end."
    )
    return stage.story("fork", BY_VMA, (closing,))


def _show(stage: StoryStage, process: Process) -> None:
    stage.vma(process, START)
    stage.page("A", process, START)
    stage.cost()
