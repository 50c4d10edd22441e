"""Holding an answer of ``rmap who`` against all page tables and the kernel's count; readers of their own."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

from rmap.live.lookup.look_up import look_up
from rmap.snapshot import Who, parse_key

PAGE = 4096
PRESENT = 1 << 63
FRAME = (1 << 55) - 1


def entries(pid: int) -> dict[int, int]:
    """Address to pagemap entry of whatever is there; a reader of its own."""
    found = {}
    maps = Path(f"/proc/{pid}/maps").read_text()
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        for start, end in re.findall(r"^([0-9a-f]+)-([0-9a-f]+)", maps, re.MULTILINE):
            first, last = int(start, 16), int(end, 16)
            if first < 1 << 63:
                data = os.pread(pagemap.fileno(), (last - first) // PAGE * 8, first // PAGE * 8)
                for number, entry in enumerate(struct.unpack(f"<{len(data) // 8}Q", data)):
                    if entry >> 62:
                        found[first + number * PAGE] = entry
    return found


def brute(pids: list[int], pfn: int) -> set[tuple[int, int]]:
    return {
        (pid, address)
        for pid in pids
        for address, entry in entries(pid).items()
        if entry & PRESENT and entry & FRAME == pfn
    }


def kpage(name: str, pfn: int) -> int:
    """What /proc/kpagecount, kpageflags or kpagecgroup says of a frame."""
    with open(f"/proc/{name}", "rb", buffering=0) as file:
        return int(struct.unpack("<Q", os.pread(file.fileno(), 8, pfn * 8))[0])


def count_of(pfn: int) -> int:
    """How many entries the kernel counts for a frame."""
    return kpage("kpagecount", pfn)


def asked(key: str) -> Who:
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
