"""evict: how does the kernel take a page from everybody who maps it? (Rules 4.3, 4.6, 4.12, 5.8.)"""

from __future__ import annotations

from rmap.lab.explain.stage import START, StoryStage, pages
from rmap.lab.results import Story

QUESTION = "How is a page taken away from everybody who maps it?"

TITLE = f"{QUESTION} The walk finds each PTE; each becomes a swap entry."


def tell(stage: StoryStage) -> Story:
    """A child's page, shared with its own child, is evicted; then one after the other reads it again."""
    stage.step("parent: mmap a page, write it, fork; the child writes and forks")
    parent = stage.spawn("parent")
    parent.mmap(pages(1), addr=START)
    parent.write(START)
    child = stage.fork(parent, "child")
    child.write(START)
    grandchild = stage.fork(child, "grand")
    page = stage.pfn(child, START)
    stage.vma(grandchild, START)
    stage.page("A", child, START)
    hung_on = stage.anchor(page)

    stage.step("the walk from page A")
    stage.walk(page)

    stage.step("reclaim: every entry that the walk finds becomes a swap entry")
    freed = stage.kernel.reclaim([page])
    for process in (parent, child, grandchild):
        stage.entry(process, START)
    left = len(stage.kernel.oracle(page))
    stage.say(f"frames freed: {freed}, PTEs left: {left}")
    stage.claim(freed == 1 and left == 0)

    stage.step("the child reads: its page comes back")
    child.read(START)
    back = stage.pfn(child, START)
    stage.page("A", child, START)
    stage.entry(grandchild, START)
    stage.claim(stage.mapcount(back) == 1)

    stage.step("the grandchild reads too: the page is in the swap cache")
    grandchild.read(START)
    stage.page("A", grandchild, START)
    stage.claim(stage.pfn(grandchild, START) == back and stage.mapcount(back) == 2)

    stage.step("the walk from page A")
    in_vain = sum(not place.hit for place in stage.walk(back))
    if stage.by_entry:
        stage.claim(in_vain == 0)
        closing = (
            "A swap entry is no mapping: the chain was dropped with the last of them, and grows again with each process"
            " that faults the page in."
        )
        return stage.story("evict", TITLE, (closing,))
    stage.claim(in_vain == 1 and stage.anchor(back) != hung_on)
    closing = (
        "A swap entry is no mapping, and it does not say where the page hung. As others may still want the page, it"
        " comes back on the root of the family: every VMA that may map it is below, and others that do not."
    )
    return stage.story("evict", TITLE, (closing,))
