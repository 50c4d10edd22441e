"""Reading the kernel's texts and numbers, without a kernel: parsers, decoding, folios, grouping by mm."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmap.live.sources import kpage_columns as page_state
from rmap.live.sources import procfs
from rmap.live.sources.kpage_columns import kinds
from rmap.live.sources.pagemap_columns import decode
from rmap.live.sources.same_mm import groups, same_page_tables
from rmap.snapshot import flags as f
from rmap.snapshot import kinds as k
from rmap.uapi.kpageflags import (
    KPF_ANON,
    KPF_COMPOUND_HEAD,
    KPF_COMPOUND_TAIL,
    KPF_HUGE,
    KPF_KSM,
    KPF_LRU,
    KPF_NOPAGE,
    KPF_RESERVED,
    KPF_SWAPBACKED,
    KPF_THP,
    KPF_ZERO_PAGE,
)
from rmap.uapi.vm_flags import VM_LOCKED, VM_MAYEXEC, VM_MAYREAD, VM_MAYSHARE, VM_READ, VM_SHARED, VM_WIPEONFORK, perms


def test_maps_lines() -> None:
    line = procfs.parse_maps_line(
        "7fccefe5d000-7fccefe83000 r-xp 00026000 fe:10 339380      /usr/lib/a b\\012c (deleted)"
    )
    assert (line.start, line.end, line.offset, line.inode) == (0x7FCCEFE5D000, 0x7FCCEFE83000, 0x26000, 339380)
    assert line.dev == os.makedev(0xFE, 0x10)
    assert line.path == "/usr/lib/a b\nc (deleted)"
    assert perms(line.flags) == "r-xp"
    assert not line.flags & VM_SHARED
    anonymous = procfs.parse_maps_line("1000-2000 rw-s 00000000 00:00 0 ")
    assert (anonymous.path, anonymous.inode, perms(anonymous.flags)) == ("", 0, "rw-s")
    assert anonymous.flags & VM_SHARED


def test_smaps_gives_every_flag() -> None:
    text = (
        "00001000-00002000 r--s 00000000 00:01 5                          /memfd:x (deleted)\n"
        "Size:                  4 kB\nVmFlags: rd mr me ms lo sd \n"
        "00002000-00003000 rw-p 00000000 00:00 0                          [heap]\n"
        "Rss:                   4 kB\nVmFlags: rd wr mr mw me ac wf \n"
    )
    shared, heap = procfs.parse_smaps(text)
    assert shared.flags == VM_READ | VM_MAYREAD | VM_MAYEXEC | VM_MAYSHARE | VM_LOCKED
    assert heap.flags & VM_WIPEONFORK
    assert heap.path == "[heap]"


def bits(*numbers: int) -> int:
    """A 64-bit word with these bits set, as a signed number."""
    word = sum(1 << number for number in numbers)
    return word - (1 << 64) if word >> 63 else word


def test_entries_are_decoded() -> None:
    entries = np.array(
        [
            0x1234 | bits(63, 56),
            0x1234 | bits(63, 61),
            (3 | 77 << 5) | bits(62),
            (3 | 77 << 5) | bits(62, 56),
            bits(62, 58),
            (26 | 77 << 5) | bits(62),
            bits(57, 62) | 30,
        ],
        np.int64,
    )
    pfn, flags = decode(entries, 1)
    assert pfn.tolist() == [0x1234, 0x1234, 3 | 77 << 5, 3 | 77 << 5, -1, -1, -1]
    assert flags.tolist() == [
        f.PTE_PRESENT | f.PTE_EXCLUSIVE,
        f.PTE_PRESENT | f.PTE_FILE,
        f.PTE_SWAP,
        f.PTE_SWAP,
        f.PTE_GUARD,
        f.PTE_OTHER,
        f.PTE_OTHER | f.PTE_UFFD_WP,
    ]


H, T = KPF_COMPOUND_HEAD, KPF_COMPOUND_TAIL


@pytest.mark.parametrize(
    ("first", "flags", "order", "head_offset", "torn"),
    [
        (8, [0, 0], [0, 0], [0, 0], [0, 0]),
        (8, [H, T, T, T, 0], [2] * 4 + [0], [0, 1, 2, 3, 0], [0] * 5),
        (8, [H, T, H, T], [1] * 4, [0, 1, 0, 1], [0] * 4),
        (8, [H, T, T, 0], [0] * 4, [0] * 4, [1, 1, 1, 0]),  # three pages are no folio
        (9, [H, T], [0, 0], [0, 0], [1, 1]),  # not at a multiple of its size
        (8, [T, T, H, T], [0, 0, 1, 1], [0, 0, 0, 1], [1, 1, 0, 0]),  # no head
        (8, [0, T], [0, 0], [0, 0], [0, 1]),
    ],
)
def test_heads_and_tails_give_folios(
    first: int, flags: list[int], order: list[int], head_offset: list[int], torn: list[int]
) -> None:
    found = page_state._folios(np.arange(first, first + len(flags)), np.array(flags, np.int64))
    assert [column.astype(int).tolist() for column in found] == [order, head_offset, torn]


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 700)), min_size=1, max_size=6))
def test_windows_are_aligned_and_cover_everything_once(pieces: list[tuple[int, int]]) -> None:
    wanted = np.unique(np.concatenate([np.arange(first, first + count) for first, count in pieces]))
    cut = np.flatnonzero(np.diff(wanted, prepend=-2) > 1)
    count = np.diff(np.append(cut, len(wanted)))
    low, size = page_state._windows(wanted[cut], count, 9)
    covered = np.concatenate([np.arange(a, a + n) for a, n in zip(low, size)])
    assert len(set(covered.tolist())) == len(covered)
    assert set(wanted.tolist()) <= set(covered.tolist())
    assert not ((low | size) & 511).any()
    assert set(wanted >> 9) == set(covered >> 9)
    marked = page_state._marked(covered, wanted[cut], count)
    assert covered[marked].tolist() == wanted.tolist()


def test_kinds() -> None:
    cases = {
        KPF_ANON | KPF_SWAPBACKED: k.ANON,
        KPF_ANON | KPF_KSM: k.KSM,
        KPF_ANON | KPF_HUGE: k.HUGETLB,
        KPF_LRU: k.FILE,
        0: k.FILE,
        KPF_SWAPBACKED: k.SHMEM,
        KPF_ZERO_PAGE | KPF_THP: k.ZERO,
        KPF_RESERVED: k.KERNEL,
        KPF_NOPAGE: k.DEVICE,
    }
    assert kinds(np.array(list(cases), np.int64)).tolist() == list(cases.values())


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_processes_are_grouped_by_mm(mms: list[int]) -> None:
    def compare(pid: int, other: int) -> int:
        left, right = mms[pid], mms[other]
        return 0 if left == right else 1 if left < right else 2

    expected: dict[int, list[int]] = {}
    for pid, mm in enumerate(mms):
        first = mms.index(mm)
        expected.setdefault(first, [])
        if pid != first:
            expected[first].append(pid)
    assert groups(range(len(mms)), compare) == expected


def test_a_pair_that_cannot_be_compared_counts_as_two() -> None:
    assert groups([1, 2, 3], lambda pid, other: None) == {1: [], 2: [], 3: []}


def test_a_page_mapped_once_cannot_be_in_two_page_tables() -> None:
    once, twice = 0x55 | bits(63, 56), 0x55 | bits(63)
    assert same_page_tables([(0, 0), (once, once)])
    assert not same_page_tables([(twice, twice)])
    assert not same_page_tables([(once, 0x56 | bits(63, 56))])
    assert not same_page_tables([])
