"""fault: what does a page fault write down for the reverse map? (Rules 2.2, 2.3, 4.1, 4.2.)"""

from __future__ import annotations

from rmap.lab.explain.stage import START, StoryStage, pages
from rmap.lab.results import Story

QUESTION = "What does a page fault write down for the reverse map?"

BY_VMA = f"{QUESTION} The page's mapping and index; the first of a VMA makes objects too."
BY_ENTRY = f"{QUESTION} One pointer to the entry, in the page."


def tell(stage: StoryStage) -> Story:
    """An area that is read, written twice, and gets a neighbour with other permissions."""
    stage.step("mmap 3 pages: an area, and nothing else")
    process = stage.spawn("process")
    process.mmap(pages(3), addr=START)
    stage.vma(process, START)
    stage.cost()
    stage.claim(stage.made() == 0)

    stage.step("read the first page: the zero page")
    process.read(START)
    stage.entry(process, START)
    stage.say(f"No reverse map tracks it: {stage.kernel.who(stage.kernel.zero_pfn).reason}.")
    stage.cost()
    stage.claim(stage.made() == stage.written() == 0)

    stage.step("write the second page: the first anonymous page of the area")
    process.write(START + pages(1))
    stage.vma(process, START)
    stage.page("B", process, START + pages(1))
    stage.cost()
    once = stage.made()

    stage.step("write the third page, and the first: now only the pages")
    process.write(START + pages(2))
    process.write(START)
    stage.page("C", process, START + pages(2))
    stage.page("A", process, START)
    stage.cost()
    stage.claim(stage.made() == 0)
    stage.claim(stage.written() == (2 if stage.by_entry else 0))

    behind = START + pages(3)
    stage.step("another area right behind, with other permissions; write it")
    process.mmap(pages(1), "rwx", addr=behind)
    process.write(behind)
    stage.vma(process, behind)
    stage.page("D", process, behind)
    stage.cost()
    neighbour = stage.made()
    if stage.by_entry:
        stage.claim(once == neighbour == 0)
        closing = "Every mapping is written down. The first is free of objects: the page itself holds the pointer."
        return stage.story("fault", BY_ENTRY, (closing,))
    stage.claim(once == 2 and neighbour == 1)
    stage.claim(stage.anchor(stage.pfn(process, behind)) == stage.anchor(stage.pfn(process, START)))
    closing = (
        "A fault writes mapping and index, once per page. Only the first of an area makes an anon_vma and a link to it;"
        " where a neighbour's anon_vma can serve, as here, only the link."
    )
    return stage.story("fault", BY_VMA, (closing,))
