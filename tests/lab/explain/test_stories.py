"""Stories: what they claim holds, what they print is what the model has, and a wrong design is found out."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from rmap import Kernel
from rmap.errors import InvariantError, NotPermitted, UsageError
from rmap.lab.explain import LIVE, STORIES, TOLD_UNDER, live_offset, offset, tell
from rmap.lab.explain.stage import WIDTH, StoryStage
from rmap.lab.explain.trace import trace
from rmap.lab.results import Story
from rmap.live.doctor.abilities import Abilities
from tests.support.broken import Blind, BlindToOne


def lines(story: Story, step: int) -> list[str]:
    """The lines of a step, counted from 1 as a reader does."""
    return list(story.steps[step - 1].lines)


def everything(story: Story) -> str:
    return "\n".join(line for step in story.steps for line in step.lines)


@pytest.mark.parametrize("profile", ["6.18", "7.0"])
@pytest.mark.parametrize("design", TOLD_UNDER)
@pytest.mark.parametrize("name", STORIES)
def test_what_a_story_claims_holds(name: str, design: str, profile: str) -> None:
    story = tell(name, design, profile=profile)
    assert story.holds
    assert (story.name, story.design, story.live) == (name, design, False)
    assert story.title.startswith(STORIES[name]) and len(story.title) > len(STORIES[name])
    assert len(story.steps) >= 3 and all(step.lines for step in story.steps) and story.closing
    assert max(len(line) for step in story.steps for line in step.lines) <= WIDTH


def test_one_page_has_one_index_and_two_offsets() -> None:
    story = tell("offset")
    (parents,) = (line for line in lines(story, 1) if line.startswith("page B"))
    (childs,) = (line for line in lines(story, 2) if line.startswith("page B"))
    for line in (parents, childs):
        assert "index 0x7f0000001 " in line and "mapping anon_vma A0" in line
    assert "offset 0x1000" in parents and "offset 0x0" in childs
    assert "pgoff 0x7f0000000" in lines(story, 1)[0] and "pgoff 0x7f0000001" in lines(story, 2)[0]
    walk = lines(story, 3)
    assert "parent  0x7f0000000000 + (0x7f0000001 - 0x7f0000000) pages = 0x7f0000001000" in walk
    assert "child   0x7f0000001000 + (0x7f0000001 - 0x7f0000001) pages = 0x7f0000001000" in walk
    assert walk[-1] == "found 2 of 2"


def test_the_arithmetic_that_is_shown_is_true() -> None:
    sums = re.findall(r"(0x\w+) \+ \((0x\w+) - (0x\w+)\) pages = (0x\w+)", "".join(map(everything, map(tell, STORIES))))
    assert len(sums) > 10
    for start, index, pgoff, address in sums:
        assert int(start, 16) + (int(index, 16) - int(pgoff, 16)) * 4096 == int(address, 16)


def test_chains_are_told_with_chains() -> None:
    story = tell("offset", "pte_chain")
    assert any("page B: chain [0x7f0000001000 in child, 0x7f0000001000 in parent]" in line for line in lines(story, 2))
    assert "anon_vma" not in everything(story) and "index" not in everything(story)
    fork = everything(tell("fork", "pte_chain"))
    assert fork.count("entries written: 3") == 4 and "objects made: 3" in fork


def test_a_fault_pays_once_per_area() -> None:
    costs = re.findall(r"objects made: (\d)", everything(tell("fault")))
    assert costs == ["0", "0", "2", "0", "1"]
    assert re.findall(r"entries written: (\d)", everything(tell("fault", "pte_chain"))) == ["0", "0", "1", "2", "1"]


def test_a_fork_takes_up_an_abandoned_anon_vma() -> None:
    """The example of rule 2.7; 7.0 turns chains around (rule 0.3), and here picks the same one."""
    assert "anon_vma A1, chain [A2 A1 A0]" in lines(tell("fork"), 5)[1]
    assert "anon_vma A1, chain [" in lines(tell("fork", profile="7.0"), 5)[1]


def test_in_vain_is_said_where_it_is_so() -> None:
    assert everything(tell("cow")).count("in vain") == 1
    assert everything(tell("evict")).count("in vain") == 1
    assert "in vain" not in everything(tell("cow", "pte_chain"))


def test_eviction_ends_on_the_root() -> None:
    story = tell("evict")
    assert "mapping anon_vma A1" in everything(story).split("reclaim")[0]
    assert any("mapping anon_vma A0  mapcount 1" in line for line in lines(story, 4))
    assert "frames freed: 1, PTEs left: 0" in lines(story, 3)


def test_a_wrong_design_does_not_hold() -> None:
    assert not offset.tell(StoryStage(BlindToOne, "6.18")).holds
    with pytest.raises(InvariantError, match="I19"):
        offset.tell(StoryStage(Blind, "6.18"))


@pytest.mark.parametrize("design", TOLD_UNDER)
def test_a_trace_is_the_walk_place_by_place(design: str) -> None:
    kernel = Kernel(design, nr_pages=64)
    parent = kernel.spawn()
    at = parent.mmap(8192)
    parent.write(at, 8192)
    child = parent.fork()
    parent.write(at)
    pfn = kernel.pfn(child, at)
    assert pfn is not None
    looked = trace(kernel, pfn)
    assert [place.address for place in looked if place.hit] == [ref.address for ref in kernel.walk(pfn)]
    assert len(looked) == kernel.costs["walk"]["ptes_checked"]
    assert sum(not place.hit for place in looked) == kernel.costs["walk"]["ptes_in_vain"]
    child.exit()
    assert trace(kernel, pfn) == []


def test_unknown_stories_and_designs_are_refused() -> None:
    with pytest.raises(UsageError, match="no story 'forks'; there are: offset, fault"):
        tell("forks")
    with pytest.raises(UsageError, match="unknown design"):
        tell("fork", "anonmmm")
    with pytest.raises(UsageError, match="stories are told under"):
        tell("fork", "anonmm")
    with pytest.raises(UsageError, match="only offset can be told live"):
        tell("fork", live=True)


def test_live_refuses_without_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    blind = Abilities(
        frames="CAP_SYS_ADMIN: none", page_state=None, other_users=None, scan=None, same_mm=None, kernel_memory=None
    )
    monkeypatch.setattr(live_offset, "abilities", lambda: blind)
    with pytest.raises(NotPermitted, match="CAP_SYS_ADMIN") as refused:
        tell("offset", live=True)
    assert "CAP_SYS_ADMIN" in refused.value.needed and "explain offset" in refused.value.works


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split())


@pytest.mark.live
@pytest.mark.needs("frames", "page_state")
def test_the_running_kernel_tells_the_same() -> None:
    before = children()
    story = tell("offset", live=True)
    assert story.holds and story.live and story.name in LIVE
    pfns = set(re.findall(r"pfn (0x\w+)", everything(story)))
    assert len(pfns) == 1 and pfns != {"0x0"}
    assert re.findall(r"offset (0x\w+)", everything(story)) == ["0x1000", "0x0", "0x1000", "0x0"]
    assert children() == before
