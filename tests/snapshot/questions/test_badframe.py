"""Bad frames: what each kind of page comes to, and which lines of a kernel log name one."""

from __future__ import annotations

import pytest

from rmap.errors import UsageError
from rmap.snapshot import kinds as k
from rmap.snapshot.questions.badframe import frame_of, frames_of_log, verdict
from rmap.uapi.kpageflags import (
    KPF_ANON,
    KPF_BUDDY,
    KPF_DIRTY,
    KPF_HUGE,
    KPF_HWPOISON,
    KPF_KSM,
    KPF_LRU,
    KPF_NOPAGE,
    KPF_SLAB,
    KPF_SWAPBACKED,
    KPF_SWAPCACHE,
    KPF_ZERO_PAGE,
)


@pytest.mark.parametrize(
    ("kind", "flags", "kills", "loses"),
    [
        (k.ANON, KPF_ANON, True, True),
        (k.ANON, KPF_ANON | KPF_SWAPCACHE, False, False),
        (k.ANON, KPF_ANON | KPF_SWAPCACHE | KPF_DIRTY, True, True),
        (k.KSM, KPF_KSM | KPF_ANON, True, True),
        (k.FILE, KPF_LRU, False, False),
        (k.FILE, KPF_LRU | KPF_DIRTY, True, True),
        (k.SHMEM, KPF_SWAPBACKED, True, True),
        (k.HUGETLB, KPF_HUGE, True, True),
        (k.KERNEL, KPF_SLAB, False, True),
        (k.ZERO, KPF_ZERO_PAGE, False, True),
        (k.FILE, KPF_BUDDY, False, False),
        (k.DEVICE, KPF_NOPAGE, False, False),
    ],
)
def test_a_verdict_for_every_kind(kind: int, flags: int, kills: bool, loses: bool) -> None:
    found = verdict(kind, flags, 0, True)
    assert (found.kills, found.loses) == (kills, loses)
    assert found.what and found.does
    assert not verdict(kind, flags, 0, False).kills


def test_poison_and_folios_are_said() -> None:
    known = verdict(k.FILE, KPF_HWPOISON | KPF_LRU, 0, True)
    assert known.what.startswith("known to be bad") and known.kills and known.does.startswith("nothing more")
    assert "the folio of 512 pages is split" in verdict(k.ANON, KPF_ANON, 9, True).does
    assert "split" not in verdict(k.HUGETLB, KPF_HUGE, 9, True).does


def test_the_lines_of_a_kernel_log() -> None:
    log = """
[  1.0] Linux version 6.18.44
[ 10.0] Memory failure: 0x1a2b3: recovery action for dirty LRU page: Recovered
[ 10.1] Memory failure: 0x1a2b3: Sending SIGBUS to victim:4711 due to hardware memory corruption
[ 11.0] EDAC MC0: 1 UE memory read error on CPU_SrcID#0_MC#0 (channel:1 page:0x18b562 offset:0x40 grain:32)
[ 12.0] {1}[Hardware Error]:   physical address: 0x000000018b563040
[ 13.0] mce: [Hardware Error]: TSC 0 ADDR 2f8443abc MISC 86
[ 14.0] soft offline: 0x77: page already poisoned
[ 14.5] usb 1-1: ADDR deadbeef is no address of memory
[ 15.0] a page:something offset:else, physically addressed 12 pages
"""
    assert frames_of_log(log.splitlines()) == [0x1A2B3, 0x18B562, 0x18B563, 0x2F8443, 0x77]


def test_frames_on_the_command_line() -> None:
    assert (frame_of("0x18b562fff"), frame_of("pfn:0x18b562"), frame_of("phys:4096")) == (0x18B562, 0x18B562, 1)
    for text in ("", "pfn:", "x", "-1", "swap:0:1", "pfn:-5", "pfn:0xffffffffffffffffff"):
        with pytest.raises(UsageError, match="not a frame"):
            frame_of(text)
