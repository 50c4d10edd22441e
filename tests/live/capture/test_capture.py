"""The running kernel as a picture, against independent readings of the same processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from rmap.live.capture.capture import capture
from rmap.live.sources.pagemap_columns import Pagemap
from rmap.live.sources.procfs import read_maps
from rmap.snapshot import Snapshot, parse_key, resolve
from rmap.snapshot import flags as f
from rmap.snapshot import kinds as k
from rmap.uapi.kpageflags import KPF_ANON, KPF_RESERVED, KPF_SWAPBACKED, KPF_ZERO_PAGE
from rmap.uapi.vm_flags import perms
from tests.support import PAGE
from tests.support.live_family import family
from tests.support.needs import need
from tests.support.proc import FRAME, entries, entry, kpage
from tests.support.system import PAGED_OUT, huge_pages, swap_file

CAPTURE = import_module("rmap.live.capture.capture")  # the module: the package has a function of this name
pytestmark = [pytest.mark.live, pytest.mark.needs("frames", "page_state", "same_mm")]


def present(snapshot: Snapshot, pid: int) -> dict[int, int]:
    """Address to frame of every present entry of a process in a picture."""
    walk = snapshot.walk_many(snapshot.pfns())
    mine = walk.pid == pid
    return dict(zip(walk.address[mine].tolist(), walk.pfn[mine].tolist()))


def entry_at(snapshot: Snapshot, pid: int, address: int) -> tuple[int, int] | None:
    """Flags and count of the extent that holds an address, None if none does."""
    ptes = snapshot.ptes
    own = snapshot.processes.pid[snapshot.vmas.process[ptes.vma]] == pid
    row = np.flatnonzero(own & (ptes.address <= address) & (address < ptes.address + ptes.count * PAGE))
    return (int(ptes.flags[row[0]]), int(ptes.count[row[0]])) if len(row) else None


FORKED = """
heap = mm(64)
touch(heap, *range(64))
spare = mm(8)
touch(spare, 0, 3)
fork(lambda: touch(heap, *range(10, 20)))
fork(lambda: heap.madvise(mmap.MADV_DONTNEED, 32 * PAGE, 8 * PAGE))
ready([address(heap), address(spare)])
"""


def test_every_entry_is_there_and_no_other() -> None:
    with family(FORKED) as tree:
        snapshot = capture(tree.pids)
        for pid in tree.pids:
            truth = {a: e & ((1 << 55) - 1) for a, e in entries(pid).items() if e >> 63}
            assert present(snapshot, pid) == truth
        assert snapshot.processes.pid.tolist() == sorted(tree.pids)
        assert snapshot.processes.ppid.tolist()[1:] == [tree.pid] * 2
        assert snapshot.parents().tolist() == [-1, 0, 0]


def test_after_fork_pages_are_shared_until_written() -> None:
    with family(FORKED) as tree:
        snapshot = capture(tree.pids)
        heap, spare = tree.value
        mother, (writer, dropper) = tree.pid, tree.children
        pages = {pid: present(snapshot, pid) for pid in tree.pids}
        for page in range(64):
            at = heap + page * PAGE
            answer = snapshot.who(pages[mother][at])
            want = {mother, dropper} if 10 <= page < 20 else {mother, writer} if 32 <= page < 40 else set(tree.pids)
            assert {m.pid for m in answer.mappings} == want
            assert {m.address for m in answer.mappings} == {at}
            assert (answer.kind, answer.status, answer.mapcount) == ("anon", "complete", len(want))
        for page in range(10, 20):
            answer = snapshot.who(pages[writer][heap + page * PAGE])
            assert [m.pid for m in answer.mappings] == [writer]
            assert entry_at(snapshot, writer, heap + page * PAGE)[0] & f.PTE_EXCLUSIVE  # type: ignore[index]
        assert entry_at(snapshot, mother, spare + PAGE) is None
        snapshot.check()


def test_mapcounts_flags_and_cgroups_are_the_kernels() -> None:
    with family(FORKED) as tree:
        snapshot = capture(tree.pids)
        # The tree's own pages hold still; those of libraries change their counts with every process on the machine.
        private = [pfn for pfn in snapshot.pfns().tolist() if snapshot.who(pfn).kind == "anon"]
        private = [pfn for pfn in private if snapshot.who(pfn).status == "complete"]
        assert len(private) > 300
        frames = snapshot.frames
        for pfn in private:
            run = snapshot.frame_run(pfn)
            assert frames.mapcount[run] == kpage("kpagecount", pfn)
            assert frames.cgroup[run] == kpage("kpagecgroup", pfn)
        kinds = snapshot.per_frame("kind")
        flags = snapshot.per_frame("flags")
        steady = KPF_ANON | KPF_SWAPBACKED | KPF_ZERO_PAGE | KPF_RESERVED
        for pfn, kind, bits in list(zip(snapshot.pfns().tolist(), kinds.tolist(), flags.tolist()))[::7]:
            now = kpage("kpageflags", pfn)
            assert bits & steady == now & steady
            assert (kind == k.ANON) == bool(now & KPF_ANON)


def test_a_private_tree_is_complete() -> None:
    with family(FORKED) as tree:
        snapshot = capture(tree.pids)
        answers = map(snapshot.who, snapshot.pfns().tolist())
        found = Counter(answer.status for answer in answers if answer.kind == "anon")
        assert set(found) <= {"complete", "raced"}
        assert found["complete"] > 500


def test_resident_size_is_what_smaps_says() -> None:
    with family(FORKED) as tree:
        snapshot = capture(tree.pids, vm_flags=True)
        for pid in tree.pids:
            smaps = Path(f"/proc/{pid}/smaps").read_text()
            rss = sum(map(int, re.findall(r"^Rss: +(\d+) kB", smaps, re.MULTILINE))) * 1024
            ptes = snapshot.ptes
            own = snapshot.processes.pid[snapshot.vmas.process[ptes.vma]] == pid
            counted = own & ((ptes.flags & (f.PTE_PRESENT | f.PTE_SPECIAL)) == f.PTE_PRESENT)
            # The vDSO page is the kernel's own, and is counted in smaps all the same.
            vdso = sum(own & ((ptes.flags & f.PTE_SPECIAL) != 0) & _labelled(snapshot, "[vdso]"))
            assert (int(ptes.count[counted].sum()) + vdso) * PAGE == rss
        assert snapshot.about["vma_flags"] == "smaps"


def _labelled(snapshot: Snapshot, label: str) -> np.ndarray:
    return np.array([snapshot.vmas.label[vma] == label for vma in snapshot.ptes.vma.tolist()])


def test_vmas_are_those_of_maps() -> None:
    with family(FORKED) as tree:
        for vm_flags in (False, True):
            snapshot = capture([tree.pid], vm_flags=vm_flags)
            vmas = snapshot.vmas
            told = [
                f"{vmas.start[row]:08x}-{vmas.end[row]:08x} {perms(int(vmas.flags[row]))}" for row in range(len(vmas))
            ]
            maps = Path(f"/proc/{tree.pid}/maps").read_text().splitlines()
            assert told == [" ".join(line.split()[:2]) for line in maps if "[vsyscall]" not in line]
            paths = [snapshot.files.path[row] if row >= 0 else "" for row in vmas.file.tolist()]
            names = [path or label for path, label in zip(paths, vmas.label)]
            assert names == [line[73:] for line in maps if "[vsyscall]" not in line]
            offsets = [int(line.split()[2], 16) // PAGE for line in maps if "[vsyscall]" not in line]
            assert [o for o, file in zip(vmas.pgoff.tolist(), vmas.file.tolist()) if file >= 0] == [
                o for o, file in zip(offsets, vmas.file.tolist()) if file >= 0
            ]


SPARSE = """
huge = mm(1 << 26, PRIVATE | 0x4000)
touched = [0, 1, 2, 77, 1 << 20, (1 << 26) - 1] + list(range(5000, 32000, 3))
touch(huge, *touched)
ready([address(huge), touched])
"""


@pytest.mark.needs("scan")
def test_a_sparse_vma_is_read_whole_and_quickly() -> None:
    with family(SPARSE) as tree:
        base, touched = tree.value
        snapshot = capture([tree.pid])
        end = base + (PAGE << 26)
        found = sorted(address for address in present(snapshot, tree.pid) if base <= address < end)
        # More than 4,096 regions: more than one call of the ioctl, and the kernel's own buffer overflows (walk_end).
        assert found == sorted({base + page * PAGE for page in touched})
        with Pagemap(tree.pid) as pagemap:
            regions = list(pagemap.populated(base, end))
        assert [a for a, b in regions for a in range(a, b, PAGE)] == found


def test_without_the_ioctl_the_same_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(25, "not a terminal")

    script = SPARSE.replace("1 << 26", "1 << 18").replace("1 << 20", "1 << 17")
    with family(script) as tree:
        first = present(capture([tree.pid]), tree.pid)
        monkeypatch.setattr("rmap.live.sources.pagemap_columns.fcntl.ioctl", refuse)
        assert present(capture([tree.pid]), tree.pid) == first


SHARED = """
memfd = os.memfd_create("cache")
os.ftruncate(memfd, 16 * PAGE)
cache = mm(8, mmap.MAP_SHARED, memfd, 4 * PAGE)
touch(cache, *range(8))
anonymous = mm(4, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
touch(anonymous, 0, 1)
zeros = mm(4)
sum(zeros[:: PAGE])
fork(lambda: (touch(cache, 2), touch(anonymous, 2), sum(zeros[:: PAGE])))
ready([address(cache), address(anonymous), address(zeros)])
"""


def test_shared_memory_and_the_zero_page() -> None:
    with family(SHARED) as tree:
        snapshot = capture(tree.pids)
        cache, anonymous, zeros = tree.value
        child = tree.children[0]
        pages = {pid: present(snapshot, pid) for pid in tree.pids}
        answer = snapshot.who(pages[child][cache + 2 * PAGE])
        assert (answer.kind, answer.status, answer.file) == ("shmem", "complete", "/memfd:cache (deleted)")
        assert answer.file_offset == 6 * PAGE
        assert [(m.pid, m.address, m.offset) for m in answer.mappings] == [
            (pid, cache + 2 * PAGE, 6 * PAGE) for pid in sorted(tree.pids)
        ]
        memfd = snapshot.files.path.index("/memfd:cache (deleted)")
        assert snapshot.files.size[memfd] == 16 * PAGE
        assert snapshot.files.kind[memfd] == f.FILE_SHMEM
        held = snapshot.holders.file == memfd
        assert (snapshot.holders.kind[held] == f.HOLDER_FD).all()
        assert snapshot.processes.pid[snapshot.holders.process[held]].tolist() == sorted(tree.pids)
        assert snapshot.who(pages[child][anonymous + 2 * PAGE]).kind == "shmem"
        zero = snapshot.who(pages[child][zeros])
        assert (zero.kind, zero.mapcount, zero.status) == ("zero", 0, "approximate")
        assert zero.found >= 8
        assert entry_at(snapshot, child, zeros)[0] & f.PTE_SPECIAL  # type: ignore[index]
        vdso = snapshot.vmas.label.index("[vdso]")
        frame = snapshot.ptes.pfn[snapshot.ptes.vma == vdso][0]
        assert snapshot.who(int(frame)).kind == "kernel"


GUARDED = """
area = mm(8)
touch(area, *range(8))
refused = libc.madvise(ctypes.c_void_p(address(area) + 2 * PAGE), 3 * PAGE, 102)
ready([address(area), refused])
"""


def test_guard_markers_are_neither_pages_nor_swap() -> None:
    with family(GUARDED) as tree:
        area, refused = tree.value
        need("MADV_GUARD_INSTALL (Linux 6.13)" if refused else None)
        snapshot = capture(tree.pids)
        assert entry_at(snapshot, tree.pid, area + 3 * PAGE) == (f.PTE_GUARD, 3)
        assert snapshot.nr_swap_ptes == 0


LARGE = """
size = 2 << 20
base = libc.mmap(None, 3 * size, 3, PRIVATE, -1, 0)
start = (base + size - 1) & ~(size - 1)
libc.madvise(ctypes.c_void_p(start), size, 14)
ctypes.memset(start, 1, size)
fork(lambda: libc.munmap(ctypes.c_void_p(start + 128 * PAGE), 64 * PAGE))
ready(start)
"""


def test_a_large_folio_is_seen_whole() -> None:
    with family(LARGE) as tree:
        snapshot = capture(tree.pids)
        start = tree.value
        pages = present(snapshot, tree.pid)
        head = pages[start]
        need(None if snapshot.who(head).order == 9 else "a free 2 MiB folio (transparent_hugepage)")
        for page in (0, 1, 127, 128, 191, 192, 511):
            answer = snapshot.who(pages[start + page * PAGE])
            assert (answer.head, answer.order, answer.pfn) == (head, 9, head + page)
            assert answer.found == answer.mapcount == (1 if 128 <= page < 192 else 2)
            assert answer.status == "complete"
        # When only a part of it is mapped, the rest of the folio is still described.
        child = capture(tree.children)
        assert child.who(head + 130).mapcount == 1
        assert child.who(head + 130).status == "hidden"
        assert child.who(head + 130).order == 9


HUGETLB = """
size = 2 << 20
base = libc.mmap(None, size, 3, PRIVATE | 0x40000, -1, 0)
if base != ctypes.c_void_p(-1).value:
    ctypes.memset(base, 1, size)
ready(base)
"""


def test_a_hugetlb_page_is_told_from_other_memory(machine_lock: None) -> None:
    with huge_pages(1), family(HUGETLB) as tree:
        snapshot = capture([tree.pid])
        pages = present(snapshot, tree.pid)
        answer = snapshot.who(pages[tree.value + 5 * PAGE])
        assert (answer.kind, answer.order, answer.found, answer.mapcount) == ("hugetlb", 9, 1, 1)
        assert answer.head == pages[tree.value]
        snapshot.check()


def test_what_is_in_swap_is_found_by_its_slot(machine_lock: None, disk: Path) -> None:
    with swap_file(disk), family(PAGED_OUT) as tree:
        snapshot = capture(tree.pids)
        held = entry_at(snapshot, tree.pid, tree.value)
        need(None if held and held[0] & f.PTE_SWAP else "MADV_PAGEOUT to swap")
        key = resolve(snapshot, parse_key(f"{tree.pid}:{tree.value:#x}"))
        assert key.swap is not None
        truth = entry(tree.pid, tree.value) & FRAME
        assert key.swap == (truth & 31, truth >> 5)
        mappings = snapshot.who_swap(*key.swap).mappings
        assert [(m.pid, m.address) for m in mappings] == [(pid, tree.value) for pid in sorted(tree.pids)]
        assert snapshot.nr_swap_ptes == 2 * sum(word >> 62 == 1 for word in entries(tree.pid).values())


VFORKED = """
area = mm(4)
touch(area, *range(4))
share_mm()
ready(address(area))
"""


@pytest.mark.parametrize("kcmp", [True, False])
def test_processes_that_share_an_mm_count_once(kcmp: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kcmp:
        monkeypatch.setattr("rmap.live.sources.same_mm.kcmp_vm", lambda pid, other: None)
    with family(VFORKED) as tree:
        snapshot = capture(tree.pids)
        assert snapshot.processes.pid.tolist() == [tree.pid]
        assert snapshot.sharers.pid.tolist() == tree.children
        answer = snapshot.who(present(snapshot, tree.pid)[tree.value])
        assert (answer.found, answer.mapcount, answer.status) == (1, 1, "complete")


def test_without_kcmp_a_forked_child_is_still_another_mm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmap.live.sources.same_mm.kcmp_vm", lambda pid, other: None)
    with family(FORKED) as tree:
        assert capture(tree.pids).processes.pid.tolist() == sorted(tree.pids)


def test_the_whole_machine_is_sound(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    with family(FORKED) as tree:
        snapshot = capture(progress=lambda done, total: steps.append((done, total)))
        assert set(tree.pids) <= set(snapshot.processes.pid.tolist())
    assert os.getpid() not in snapshot.processes.pid.tolist()
    assert snapshot.about["skipped"] == 0
    assert steps[-1][0] == steps[-1][1] == len(steps)
    checked = {line.invariant: line.checked for line in snapshot.check()}
    assert checked["I19"] > 1000
    snapshot.save(tmp_path / "here.rmap")
    again = Snapshot.load(tmp_path / "here.rmap")
    assert again.nr_ptes == snapshot.nr_ptes
    assert again.about["release"] == os.uname().release


def test_the_picture_taker_is_left_out_but_its_entries_are_known() -> None:
    with family(FORKED) as tree:
        snapshot = capture(tree.pids)
        libc = next(row for row, path in enumerate(snapshot.files.path) if path.endswith("/libc.so.6"))
        mine = {line.path for line in read_maps(os.getpid())}
        assert snapshot.files.path[libc] in mine
        frames = snapshot.frames
        assert (frames.own[(frames.file == libc) & (frames.mapcount > 3)] > 0).any()
        assert (frames.own[frames.kind == k.ANON] == 0).all()


def test_a_process_that_has_ended_is_not_in_the_picture() -> None:
    with family("ready(0)") as tree:
        pass
    assert len(capture([tree.pid]).processes) == 0


REFUSED = """
import os, sys
from rmap.errors import NotPermitted
from rmap.live.capture.capture import capture
from rmap.live.doctor.abilities import abilities
os.setgid(65534); os.setuid(65534)
try:
    capture([os.getppid()])
except NotPermitted as error:
    print(error, "|", error.needed, "|", abilities().missing("page_state") or "")
"""

UNCAPABLE = """
import ctypes, os
from rmap.errors import NotPermitted
from rmap.live.capture.capture import capture
ctypes.CDLL(None).prctl(24, 21)                        # PR_CAPBSET_DROP, CAP_SYS_ADMIN
header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
libc = ctypes.CDLL(None)
libc.capget(header, data)
for word in (0, 1, 2):
    data[word] &= ~(1 << 21)
assert libc.capset(header, data) == 0
try:
    capture([os.getppid()])
except NotPermitted as error:
    print(error, "|", error.needed, "|", error.works)
"""


@pytest.mark.parametrize(
    ("script", "message"),
    [(REFUSED, "cannot be read here"), (UNCAPABLE, "the kernel hides page frames: it shows PFN 0")],
)
def test_without_privileges_the_refusal_says_what_is_missing(script: str, message: str) -> None:
    need(None if os.getuid() == 0 else "root")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert message in told.stdout, told.stderr
    assert "CAP_SYS_ADMIN (page frames) and CAP_SYS_PTRACE" in told.stdout
