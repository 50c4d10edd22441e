"""cow: what changes when a shared page is written? (Rules 4.5, 4.7, 4.8.)"""

from __future__ import annotations

from rmap.lab.explain.stage import START, StoryStage, pages
from rmap.lab.results import Story

QUESTION = "What does copy-on-write change in the reverse map?"

TITLE = f"{QUESTION} The writer's entry leaves the page; its copy starts anew."


def tell(stage: StoryStage) -> Story:
    """The child writes one shared page, the parent the other; then the last owner of an original writes."""
    second = START + pages(1)
    stage.step("parent: mmap 2 pages, write both, fork")
    parent = stage.spawn("parent")
    parent.mmap(pages(2), addr=START)
    parent.write(START, pages(2))
    child = stage.fork(parent, "child")
    page = stage.pfn(parent, second)
    stage.vma(child, START)
    stage.page("A", parent, START)
    stage.page("B", parent, second)
    stage.entry(parent, second)

    stage.step("the child writes the first page: a copy, A'")
    child.write(START)
    copy = stage.pfn(child, START)
    stage.page("A", parent, START)
    stage.page("A'", child, START)
    stage.claim(copy != stage.pfn(parent, START) and stage.mapcount(copy) == 1)

    stage.step("the walk from the copy A'")
    stage.claim(len(stage.walk(copy)) == 1)

    stage.step("the parent writes the second page: the copy is the parent's now")
    parent.write(second)
    stage.page("B'", parent, second)
    stage.page("B", child, second)
    stage.claim(stage.pfn(child, second) == page and stage.mapcount(page) == 1)
    hung_on = stage.anchor(page)

    stage.step("the walk from page B, which only the child maps")
    in_vain = sum(not place.hit for place in stage.walk(page))

    stage.step("the child writes page B: it is the last owner, so no copy")
    child.write(second)
    stage.page("B", child, second)
    stage.entry(child, second)
    stage.claim(stage.pfn(child, second) == page)

    stage.step("the walk from page B again")
    stage.claim(len(stage.walk(page)) == 1)
    if stage.by_entry:
        stage.claim(in_vain == 0)
        closing = (
            "The writer's pointer leaves the old page's chain, and the copy holds one pointer of its own. A chain does"
            " not shrink back to a direct pointer by itself: that happens under memory pressure."
        )
        return stage.story("cow", TITLE, (closing,))
    stage.claim(in_vain == 1 and stage.anchor(page) != hung_on)
    closing = (
        "A copy hangs on the writer's own anon_vma, so its walk does not look at others. A page that others left behind"
        " stays on the old one, and is looked for there in vain, until its last owner writes it: then mapping moves,"
        " and index stays."
    )
    return stage.story("cow", TITLE, (closing,))
