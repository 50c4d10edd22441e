"""What a memory error in a frame means: what the kernel could do about it, by what the frame holds.

The rules are those of ``memory_failure`` (mm/memory-failure.c: ``error_states``, ``hwpoison_user_mappings``,
``collect_procs_ksm``, ``me_pagecache_clean``, ``me_pagecache_dirty``, ``me_swapcache_dirty``, ``me_huge_page``), read
in trees of 5.14 and of the time of folios; not in that of 6.18. A kernel without CONFIG_MEMORY_FAILURE does none of it.

Who maps a page that is lost gets SIGBUS: at once, if ``vm.memory_failure_early_kill`` is set or the process asked for
it (prctl PR_MCE_KILL), else when it next touches the page. If a large folio cannot be split, its mappers are signalled
even if its page was clean. The dirty bit of a page-table entry is not told by /proc: a clean page of a file with a
writable shared mapping may be dirty all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rmap.errors import UsageError
from rmap.snapshot.kinds import DEVICE, KINDS
from rmap.uapi.kpageflags import KPF_BUDDY, KPF_HWPOISON, KPF_NOPAGE
from rmap.units import PAGE_SHIFT

_MOST = 1 << 40  # 2^52 bytes: what a physical address may be on x86-64


@dataclass(frozen=True)
class Verdict:
    """What would become of a frame.

    Attributes:
        what: the kind of page, in words.
        does: what the kernel could do, in words.
        kills: whether everybody who maps it gets SIGBUS: when it is found, or touched next.
        loses: whether data is lost.
    """

    what: str
    does: str
    kills: bool = False
    loses: bool = False


def verdict(kind: int, flags: int, order: int, mapped: bool) -> Verdict:
    """Judge one frame.

    Args:
        kind: as ``frames.kind``.
        flags: of /proc/kpageflags.
        order: its folio has ``1 << order`` pages.
        mapped: whether somebody maps it.
    """
    now = _verdict(kind, flags, mapped)
    if flags & KPF_HWPOISON:
        does = "nothing more: it is known to be bad (HWPoison); whoever touches it gets SIGBUS"
        return Verdict(f"known to be bad, {now.what}", does, mapped, now.loses)
    split = f"; first the folio of {1 << order} pages is split: the others stay" if _splits(kind, order) else ""
    return Verdict(now.what, now.does + split, now.kills, now.loses)


def _splits(kind: int, order: int) -> bool:
    return order > 0 and kind in KINDS.walked


def _verdict(kind: int, flags: int, mapped: bool) -> Verdict:
    if flags & KPF_BUDDY and not flags & KPF_NOPAGE:
        return Verdict("free", "takes it off the free lists; nobody is hit")
    fate = KINDS[DEVICE if flags & KPF_NOPAGE else kind].fate(flags)
    return Verdict(fate.what, fate.does, fate.kills and mapped, fate.loses)


_PATTERNS = (
    (re.compile(r"Memory failure: (?:0x)?([0-9a-f]+):", re.IGNORECASE), 0),
    (re.compile(r"\bpage:(?:0x)?([0-9a-f]+) offset:", re.IGNORECASE), 0),  # EDAC
    (re.compile(r"\bsoft[ _]offline: (?:0x)?([0-9a-f]+)\b", re.IGNORECASE), 0),
    (re.compile(r"\bpfn[:= ]+(0x[0-9a-f]+)", re.IGNORECASE), 0),
    (re.compile(r"\bphysical[ _]address: (?:0x)?([0-9a-f]+)", re.IGNORECASE), PAGE_SHIFT),  # APEI, CPER
    (re.compile(r"\bTSC \S+ .*?\bADDR (?:0x)?([0-9a-f]+)\b", re.IGNORECASE), PAGE_SHIFT),  # machine checks
)


def frames_of_log(lines: Iterable[str]) -> list[int]:
    """The frames that a kernel log names as bad, each once, in the order of the log.

    Known are the lines of memory_failure, soft offline, EDAC, APEI (physical address) and machine checks (ADDR).
    """
    frames: dict[int, None] = {}
    for line in lines:
        for pattern, shift in _PATTERNS:
            match = pattern.search(line)
            if match is not None:
                frames[int(match[1], 16) >> shift] = None
                break
    return list(frames)


def frame_of(text: str) -> int:
    """The frame of ``0x18b562000`` (a physical address), ``phys:...`` or ``pfn:...``.

    Raises:
        UsageError: it is none of these.
    """
    prefix, colon, number = text.rpartition(":")
    try:
        value = int(number, 16 if number.lower().startswith("0x") else 10)
    except ValueError:
        value = -1
    frame = value if prefix == "pfn" else value >> PAGE_SHIFT
    if value < 0 or frame >= _MOST or (colon and prefix not in ("pfn", "phys")):
        raise UsageError(f"not a frame: {text!r} (examples: 0x18b562000, pfn:0x18b562)")
    return frame
