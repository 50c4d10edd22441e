"""The kernel's own memory, read by BPF: against /proc, against arithmetic, and where it cannot be read."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from rmap.errors import NotPermitted
from rmap.live.bpf import BpfMemory, libbpf, memory_or_none
from rmap.live.bpf.topology import parse
from rmap.live.capture.capture import capture
from rmap.live.sources.pagemap_columns import Pagemap
from rmap.live.sources.procfs import read_maps
from rmap.snapshot import flags as f
from rmap.snapshot import kinds as k
from rmap.structs.anon_vmas import Topology
from rmap.structs.page import RawPtes
from tests.support import PAGE
from tests.support.live_family import family
from tests.support.needs import need

PFN = (1 << 55) - 1
ANON = 1
MODULE = import_module("rmap.live.bpf.kernel_memory")


def row(topology: Topology, pid: int, address: int) -> int:
    """The VMA of a process that covers an address."""
    vmas = topology.vmas
    (found,) = np.flatnonzero((vmas.pid == pid) & (vmas.start <= address) & (address < vmas.end)).tolist()
    return int(found)


def chain(topology: Topology, vma: int) -> list[int]:
    """The addresses of a VMA's anon_vmas, in the order of its chain."""
    return topology.anon_vmas.address[topology.links.anon_vma[topology.links.vma == vma]].tolist()


def frame(pid: int, address: int) -> int:
    with Pagemap(pid) as pagemap:
        return pagemap.entry(address) & PFN


# At a place of its own: beside another VMA it would be one with it, or share its anon_vma.
LINE = """
place = libc.mmap(0x200000000000, 4 * PAGE, 3, PRIVATE | 0x100000, -1, 0)
buffer = (ctypes.c_char * (4 * PAGE)).from_address(place)
touch(buffer, 0, 1, 2, 3)
def child():
    touch(buffer, 1)
    libc.munmap(ctypes.c_void_p(place), PAGE)
fork(child)
ready(place)
"""


@pytest.mark.live
def test_a_fork_as_the_kernel_keeps_it(memory: BpfMemory) -> None:
    """Rules 2.4 to 2.6 and 7a: the child's chain is its own anon_vma and the parent's; its VMA begins a page later."""
    with family(LINE) as told:
        place, (child,) = told.value, told.children
        topology = memory.topology([told.pid, child])
        parent_vma, child_vma = row(topology, told.pid, place), row(topology, child, place + PAGE)
        vmas, anon_vmas = topology.vmas, topology.anon_vmas
        top, below = int(vmas.anon_vma[parent_vma]), int(vmas.anon_vma[child_vma])
        assert chain(topology, parent_vma) == [anon_vmas.address[top]]
        assert chain(topology, child_vma) == [anon_vmas.address[below], anon_vmas.address[top]]
        assert (anon_vmas.root[below], anon_vmas.parent[below], anon_vmas.root[top]) == (top, top, top)
        assert [anon_vmas.num_active_vmas[i] for i in (top, below)] == [1, 1]
        assert [anon_vmas.num_children[i] for i in (top, below)] == [2, 0]
        assert [anon_vmas.refcount[i] for i in (top, below)] == [2, 1]
        assert vmas.start[child_vma] == place + PAGE
        assert vmas.pgoff[child_vma] == vmas.pgoff[parent_vma] + (place + PAGE - vmas.start[parent_vma]) // PAGE

        pages = memory.struct_pages(np.array([frame(told.pid, place + i * PAGE) for i in range(4)]))
        copied = memory.struct_pages(np.array([frame(child, place + PAGE)]))
        assert (pages.mapping == anon_vmas.address[top] | ANON).all()
        assert copied.mapping.tolist() == [anon_vmas.address[below] | ANON]
        linear = vmas.pgoff[parent_vma] + (place - vmas.start[parent_vma]) // PAGE
        assert pages.index.tolist() == [linear, linear + 1, linear + 2, linear + 3]
        assert pages.mapcount.tolist() == [1, 1, 2, 2]
        assert copied.exclusive.all() and not pages.exclusive.any()

        tree = memory.anon_vma_tree(int(anon_vmas.address[top]))
        assert set(tree.vma.tolist()) == {vmas.address[parent_vma], vmas.address[child_vma]}
        assert memory.anon_vma_tree(int(anon_vmas.address[below])).vma.tolist() == [vmas.address[child_vma]]


@pytest.mark.live
def test_vmas_are_those_of_proc(memory: BpfMemory) -> None:
    """Every VMA, in order, of exactly the processes asked for; flags as smaps has them, and pgoff of files."""
    with family(
        "buffer = mm(64)\ntouch(buffer, 3)\nlibc.mprotect(ctypes.c_void_p(address(buffer)), PAGE, 1)\nready(0)"
    ) as told:
        vmas = memory.topology([told.pid]).vmas
        lines = read_maps(told.pid, vm_flags=True)
        ours = vmas.start < 1 << 47
        assert vmas.pid[ours].tolist() == [told.pid] * len(lines)
        assert vmas.start[ours].tolist() == [line.start for line in lines]
        assert vmas.end[ours].tolist() == [line.end for line in lines]
        assert (vmas.flags[ours] & f.VM_ALL).tolist() == [line.flags for line in lines]
        files = [(line.offset // PAGE, line.inode, line.dev) for line in lines if line.inode]
        of_files = (vmas.file != 0) & ours
        read = zip(vmas.pgoff[of_files].tolist(), vmas.inode[of_files].tolist(), vmas.dev[of_files].tolist())
        assert list(read) == files


@pytest.mark.live
def test_another_choice_of_processes(memory: BpfMemory) -> None:
    with family("fork(lambda: None)\nfork(lambda: None)\nready(0)") as told:
        first, second = told.children
        for asked in ([first], [second, told.pid], [], [first, second]):
            assert set(memory.topology(asked).vmas.pid.tolist()) == set(asked)
        assert {first, second, told.pid, os.getpid()} <= set(memory.topology().vmas.pid.tolist())
        assert set(memory.topology([second]).vmas.pid.tolist()) == {second}


@pytest.mark.live
def test_page_tables_as_the_machine_has_them(memory: BpfMemory) -> None:
    """Rules 4.5 and 4.7: after a fork both sides are write-protected; a copy is writable, exclusive and dirty (I17)."""
    need(memory.why_no_ptes)
    with family(LINE.replace("ready(", "buffer[2 * PAGE]\nready(")) as told:
        (child,) = told.children
        vmas = memory.topology([told.pid, child]).vmas
        mm = dict(zip(vmas.pid.tolist(), vmas.mm.tolist()))
        addresses = told.value + np.arange(5) * PAGE
        parent, copy = memory.ptes(mm[told.pid], addresses), memory.ptes(mm[child], addresses)
        assert parent.present.tolist()[:4] == [True] * 4 and not parent.write[:4].any() and parent.dirty[:4].all()
        assert copy.present.tolist()[:4] == [False, True, True, True]  # the first was unmapped
        assert copy.write.tolist()[:4] == [False, True, False, False]
        assert parent.pfn.tolist()[:4] == [frame(told.pid, at) for at in addresses.tolist()[:4]]
        assert set(parent.shift.tolist()[:4]) == {12}
        snapshot = capture([told.pid, child], memory=memory)
        assert snapshot.about["pte_write"]
        (line,) = [line for line in snapshot.check() if line.invariant == "I17"]
        assert line.checked > 0 and not line.violations


# One huge page (small ones where there are none) and 64 small ones, written, and then closed.
CLOSED = """
place = libc.mmap(0x200000000000, 1024 * PAGE, 3, PRIVATE | 0x100000, -1, 0)
libc.madvise(ctypes.c_void_p(place), 512 * PAGE, 14)
libc.madvise(ctypes.c_void_p(place + 512 * PAGE), 512 * PAGE, 15)
buffer = (ctypes.c_char * (1024 * PAGE)).from_address(place)
touch(buffer, *range(576))
libc.mprotect(ctypes.c_void_p(place), 1024 * PAGE, 0)
ready(place)
"""


@pytest.mark.live
def test_entries_that_nobody_may_use_are_present_all_the_same(memory: BpfMemory) -> None:
    """PROT_NONE clears the present bit and inverts the frame (L1TF); pagemap and the reverse map know the page."""
    need(memory.why_no_ptes)
    with family(CLOSED) as told:
        mm = int(memory.topology([told.pid]).vmas.mm[0])
        addresses = told.value + np.arange(1024) * PAGE
        raw = memory.ptes(mm, addresses)
        assert not (raw.entry & 1).any(), "the processor follows none of them"
        assert raw.present[:576].all() and not raw.present[576:].any() and not raw.write.any() and raw.dirty[:576].all()
        inside = addresses >> 12 & (1 << raw.shift - 12) - 1
        assert (raw.pfn + inside).tolist()[:576] == [frame(told.pid, at) for at in addresses.tolist()[:576]]
        snapshot = capture([told.pid], memory=memory)
        anonymous = (snapshot.per_frame("kind") == k.ANON) & (snapshot.reverse.found > 0)
        assert anonymous.sum() >= 576 and not snapshot.per_frame("raced")[anonymous].any()
        assert {line.invariant for line in snapshot.check() if not line.reason} >= {"I13", "I14", "I15", "I17", "I21"}


def test_frames_of_huge_entries_and_of_closed_ones() -> None:
    frame, closed = 0x12345, 1 << 8
    inverted = ~(0x400 << 12) & 0x000FFFFFFFE00000
    entries = [frame << 12 | 1, ~(frame << 12) & 0x000FFFFFFFFFF000 | closed, 0x400 << 12 | 1 << 7 | 1 << 12 | 1,
               inverted | closed | 1 << 7, inverted | closed, frame << 12, 0]  # fmt: skip
    raw = RawPtes(np.array(entries, np.int64), np.array([12, 12, 21, 21, 21, 12, 12], np.int64))
    assert raw.present.tolist() == [True, True, True, True, False, False, False]
    assert raw.pfn.tolist() == [frame, frame, 0x400, 0x400, 0, 0, 0]


@pytest.mark.live
def test_a_file_knows_its_mappings(memory: BpfMemory, tmp_path: Path) -> None:
    """Rule 1.12: i_mmap holds every VMA of the file, private or shared, at any offset."""
    path = tmp_path / "data"
    path.write_bytes(bytes(16 * PAGE))
    script = f"""
fd = os.open({str(path)!r}, os.O_RDWR)
whole, late = mm(16, mmap.MAP_SHARED, fd), mm(4, mmap.MAP_PRIVATE, fd, 8 * PAGE)
touch(whole, 9)
late[PAGE]
ready([address(whole), address(late)])
"""
    with family(script) as told:
        whole, late = told.value
        topology = memory.topology([told.pid])
        shared, private = row(topology, told.pid, whole), row(topology, told.pid, late)
        mapping = int(topology.vmas.mapping[shared])
        assert topology.vmas.mapping[private] == mapping
        tree = memory.i_mmap_tree(mapping)
        assert set(tree.vma.tolist()) == {topology.vmas.address[shared], topology.vmas.address[private]}
        assert sorted(tree.pgoff.tolist()) == [0, 8]
        assert tree.i_mmap_writable == 1 and not tree.truncated
        page = memory.struct_pages(np.array([frame(told.pid, late + PAGE)]))
        assert (page.mapping.tolist(), page.index.tolist(), page.mapcount.tolist()) == ([mapping], [9], [2])


@pytest.mark.live
def test_frames_that_do_not_exist(memory: BpfMemory) -> None:
    """In the order asked, repeated or not; beyond memory there is no struct page."""
    with family("buffer = mm(1)\ntouch(buffer, 0)\nready(address(buffer))") as told:
        pfn = frame(told.pid, told.value)
        pages = memory.struct_pages(np.array([1 << 40, pfn, pfn, 1 << 41]))
        assert pages.valid.tolist() == [False, True, True, False]
        assert pages.mapcount.tolist() == [0, 1, 1, 0]
        assert not len(memory.struct_pages(np.empty(0, np.int64)).pfn)


@pytest.mark.live
def test_many_pages_in_several_calls(memory: BpfMemory) -> None:
    pages = 70000  # more than fit one call
    with family(f"buffer = mm({pages})\ntouch(buffer, *range({pages}))\nready(address(buffer))") as told:
        with Pagemap(told.pid) as pagemap:
            _, entries = pagemap.read([(told.value, told.value + pages * PAGE)])
        read = memory.struct_pages(entries & PFN)
        assert len(entries) == pages
        assert (np.diff(read.index) == 1).all() and read.exclusive.all()


@pytest.mark.live
def test_a_picture_has_the_kernels_own_topology(memory: BpfMemory) -> None:
    with family(LINE) as told:
        (child,) = told.children
        snapshot = capture([told.pid, child], memory=memory)
        assert snapshot.about["topology"] == "kernel" and snapshot.about["anon_exclusive"]
        assert (snapshot.vmas.pgoff >= 0).all()
        place = told.value + PAGE
        (vma,) = np.flatnonzero(
            (snapshot.vmas.start <= place) & (place < snapshot.vmas.end) & (snapshot.vmas.process == 1)
        )
        anon_vma = int(snapshot.vmas.anon_vma[vma])
        linked = snapshot.anon_vma_chains.anon_vma[snapshot.anon_vma_chains.vma == vma].tolist()
        assert linked == [anon_vma, int(snapshot.anon_vmas.parent[anon_vma])]
        run = snapshot.frame_run(frame(child, place))
        assert snapshot.frames.anon_vma[run] == anon_vma
        assert snapshot.frames.flags[run] & f.KPF_ANON_EXCLUSIVE
        snapshot.check()


@pytest.mark.live
def test_relatives_outside_the_picture_are_noticed(memory: BpfMemory) -> None:
    """An anon_vma that a VMA outside is linked to is not whole: its counters are not held against what is seen."""
    with family(LINE) as told:
        both = capture([told.pid, *told.children], memory=memory)
        alone = capture([told.pid], memory=memory)
        place = told.value + PAGE
        for snapshot, whole in ((both, True), (alone, False)):
            (vma,) = np.flatnonzero(
                (snapshot.vmas.start <= place) & (place < snapshot.vmas.end) & (snapshot.vmas.process == 0)
            )
            assert snapshot.anon_vmas.whole[snapshot.vmas.anon_vma[vma]] == whole
            snapshot.check()


def record(kind: int, *words: int) -> list[int]:
    return [kind, *words, *[0] * (5 - len(words))]


def vma_records(pid: int, address: int, anon_vma: int) -> list[int]:
    return record(1, pid, address, 0x1000, 0x2000, 0x73) + record(2, 7, 0, anon_vma) + record(3)


def test_an_address_used_twice_is_two_objects() -> None:
    """Rule 1.9: freed and used again while the machine was read, as another family's root and as a child."""
    words = vma_records(1, 10, -80) + record(4, -80, -80, -80, 1 | 1 << 32, 1)
    words += vma_records(2, 20, -80) + record(4, -80, -99, -99, 1, 1) + record(4, -99, -99, -99, 2 | 2 << 32, 1)
    topology = parse(np.array(words, np.int64).tobytes())
    table = topology.anon_vmas
    assert table.address.tolist() == [-99, -80, -80]
    assert not table.torn.any()
    first, second = topology.vmas.anon_vma.tolist()
    assert {first, second} == {1, 2}
    assert table.root[second] == 0 and table.root[first] != 0
    assert topology.links.anon_vma.tolist() == [first, second, 0]


def test_counters_that_move_while_they_are_read_are_marked() -> None:
    words = vma_records(1, 10, -80) + record(4, -80, -80, -80, 1 | 1 << 32, 1)
    words += vma_records(2, 20, -80) + record(4, -80, -80, -80, 1 | 1 << 32, 2)
    topology = parse(np.array(words, np.int64).tobytes())
    assert topology.anon_vmas.torn.tolist() == [True]
    assert topology.vmas.anon_vma.tolist() == [0, 0]


def test_a_chain_longer_than_is_read_is_told() -> None:
    words = vma_records(1, 10, -80) + record(4, -80, -80, -80, 1 | 1 << 32, 1 - (1 << 63))
    words += vma_records(2, 20, 0)
    topology = parse(np.array(words, np.int64).tobytes())
    assert topology.truncated.tolist() == [0]
    assert topology.anon_vmas.num_active_vmas.tolist() == [1]
    assert topology.vmas.anon_vma.tolist() == [0, -1]


def test_nothing_to_read() -> None:
    topology = parse(b"")
    assert not len(topology.vmas) and not len(topology.links) and not len(topology.anon_vmas)


def test_a_build_without_clang_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if libbpf_is_missing():
        pytest.skip("needs libbpf.so.1")
    monkeypatch.setattr(MODULE, "OBJECT", tmp_path / "memory.bpf.o")
    with pytest.raises(NotPermitted) as refused:
        BpfMemory()
    assert "built without clang" in refused.value.needed


def test_a_damaged_object_file_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if libbpf_is_missing():
        pytest.skip("needs libbpf.so.1")
    (tmp_path / "memory.bpf.o").write_bytes(b"\x7fELF and nothing more")
    monkeypatch.setattr(MODULE, "OBJECT", tmp_path / "memory.bpf.o")
    with pytest.raises(NotPermitted, match="own anon_vmas"):
        BpfMemory()


def libbpf_is_missing() -> bool:
    try:
        libbpf.library()
    except NotPermitted:
        return True
    return False


@pytest.mark.live
@pytest.mark.needs("kernel_memory")
def test_who_may_not_is_told_what_is_missing() -> None:
    """Root without capabilities: another user may not be able to read this interpreter."""
    command = "from rmap.live.bpf import why_not; print(why_not())"
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable]
    told = subprocess.run([*powerless, "-c", command], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("CAP_BPF and CAP_PERFMON")


@pytest.mark.live
@pytest.mark.needs("frames", "page_state", "kernel_memory")
@pytest.mark.parametrize("step", ["_find_vmemmap", "_number"])
@pytest.mark.parametrize("error", [PermissionError(1, "Operation not permitted"), OSError(14, "Bad address"), None])
def test_what_fails_half_way_is_refused_and_leaves_nothing(
    step: str, error: OSError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs, maps and the shared memory are closed; and who asked goes on with /proc, as with any refusal."""
    raised = error or libbpf.refusal("CAP_SYS_ADMIN (page frames)")

    def fails(*arguments: object) -> int:
        raise raised

    before = len(os.listdir("/proc/self/fd")), shared_memory()
    with monkeypatch.context() as patched:
        patched.setattr(BpfMemory, step, fails)
        with pytest.raises(NotPermitted) as refused:
            BpfMemory()
        assert ("runs the BPF programs" in refused.value.needed) == (error is not None)
        assert memory_or_none() is None
        assert capture([os.getppid()]).about["topology"] != "kernel"
        MODULE.why_not.cache_clear()
        assert MODULE.why_not() == refused.value.needed
    MODULE.why_not.cache_clear()
    assert MODULE.why_not() is None
    assert (len(os.listdir("/proc/self/fd")), shared_memory()) == before


def shared_memory() -> int:
    """How often memory of a BPF map is mapped here: other tests may hold a reader."""
    return Path("/proc/self/maps").read_text().count("bpf-map")


@pytest.mark.live
@pytest.mark.needs("frames", "page_state", "kernel_memory")
def test_compiled_programs_of_another_version_are_refused() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(NotPermitted) as refused:
        libbpf.BpfObject(MODULE.OBJECT, {"no_such_map": 3})
    assert "no_such_map" in refused.value.needed
    with libbpf.BpfObject(MODULE.OBJECT) as opened, pytest.raises(NotPermitted, match="own anon_vmas"):
        opened.program("no_such_program")
    assert len(os.listdir("/proc/self/fd")) == before
