"""An answer of ``rmap who``, held against all page tables and the kernel's count."""

from __future__ import annotations

from pathlib import Path

from rmap.live.lookup.look_up import look_up
from rmap.snapshot import Who, parse_key
from tests.support.proc import brute, count_of


def asked(key: str) -> Who:
    """The answer; the test fails if there is no page to answer for."""
    answer = look_up(parse_key(key))
    assert isinstance(answer, Who), answer
    return answer


def judged(key: str, pids: list[int]) -> Who:
    """The answer, held against all page tables of the family and the kernel's count."""
    answer = asked(key)
    assert answer.pfn is not None
    found = {(one.pid, one.address) for one in answer.mappings}
    assert found == brute(pids, answer.pfn)
    assert answer.found == len(found) == answer.mapcount == count_of(answer.pfn)
    assert answer.status == "complete"
    for one in answer.mappings:
        assert one.vma_start <= one.address < one.vma_end
        assert f"{one.vma_start:x}-{one.vma_end:x} {one.perms}" in Path(f"/proc/{one.pid}/maps").read_text()
    return answer
