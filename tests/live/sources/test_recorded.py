"""Every reader of live/sources on recorded machines: what is known of them, and what happens where files are missing.

``v2``: a server with a unified hierarchy of cgroups. 5000001 and its child 5000002 share memory, 5000003 is a thread of
the kernel, 5000004 may not be read, 5000006 ends as soon as it has been listed. ``v1`` and ``hybrid``: what differs
where the memory controller is on a hierarchy of its own. Pids are above what a kernel gives away, so that no system
call finds them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rmap.errors import NotPermitted
from rmap.live.lookup.look_up import NoPage, look_up
from rmap.live.lookup.mappings import mappings_of
from rmap.live.lookup.search import Hit
from rmap.live.sources import memcg, procfs, ptrace, sysfs
from rmap.live.sources.kernel_config import read_config
from rmap.live.sources.kpage import count_of, mapcount_kind, open_kpage, page_at
from rmap.live.sources.kpage_columns import read_counts, read_page_state
from rmap.live.sources.pagemap import entry_of, slot_of
from rmap.live.sources.pagemap_columns import Pagemap
from rmap.live.sources.rollup import read_rollups
from rmap.live.sources.root import rooted
from rmap.snapshot import Who, parse_key
from rmap.snapshot import flags as f
from rmap.uapi.kpageflags import KPF_NOPAGE
from rmap.uapi.vm_flags import VM_LOCKED, VM_SHARED, VM_WIPEONFORK, perms
from rmap.units import PAGE_SIZE
from tests.live.sources.recorded import recorded, unprivileged

WEB, WORKER, KTHREAD, VAULT, GONE = 5000001, 5000002, 5000003, 5000004, 5000006
HEAP = 0x55D000100000


@pytest.fixture
def machine() -> Iterator[Path]:
    with recorded("v2") as folder:
        yield folder


@pytest.mark.usefixtures("machine")
class TestProcesses:
    def test_who_is_there(self) -> None:
        assert procfs.pids() == [WEB, WORKER, KTHREAD, VAULT, GONE]
        web, worker, thread = map(procfs.read_stat, (WEB, WORKER, KTHREAD))
        assert web == procfs.Stat(WEB, "web (main)", 1, WEB, start_time=7000, rss=9, kernel_thread=False)
        assert (worker.comm, worker.ppid, thread.kernel_thread) == ("web) S 1 (x", WEB, True)
        assert procfs.major_faults(WEB) == 4
        assert procfs.major_faults(GONE) == 0
        assert procfs.read_status(WEB)["VmSwap"] == "8 kB"
        assert procfs.capabilities() == 1 << 21 | 1 << 1
        assert procfs.owner_of(WEB) == os.geteuid()

    def test_threads_and_what_they_ran(self) -> None:
        assert procfs.threads_of(WEB) == [WEB, 5000007]
        assert sorted(procfs.run_times(WEB)) == ["123456", "voluntary_ctxt_switches:\t5nonvoluntary_ctxt_switches:\t6"]
        assert (ptrace.threads_of(GONE), ptrace.state_of(WEB), ptrace.state_of(GONE)) == ([], "S", "X")

    def test_memory_maps(self) -> None:
        text, data, heap, segment, memfd, stack = procfs.read_maps(WEB)
        assert (text.dev, text.inode, text.path, perms(text.flags)) == (0xFE00, 100, "/opt/web/bin/web", "r-xp")
        assert (data.start, data.end, data.offset) == (0x55D000002000, 0x55D000003000, 0x2000)
        assert (heap.path, heap.inode, stack.path) == ("[heap]", 0, "[stack]")
        assert segment.flags & VM_SHARED and memfd.path == "/memfd:two\nlines (deleted)"
        assert procfs.maps_text(WEB).count(b"\n") == 7
        text, heap = procfs.read_maps(WEB, vm_flags=True)
        assert heap.flags & VM_LOCKED and heap.flags & VM_WIPEONFORK and not text.flags & VM_LOCKED
        assert procfs.areas_with_anonymous_pages() == 1
        assert procfs.has_memory(WEB) and not procfs.has_memory(KTHREAD)
        assert procfs.read_maps(KTHREAD) == []

    def test_who_has_gone_or_refuses(self) -> None:
        readers = (procfs.read_maps, procfs.has_memory, procfs.maps_text, lambda pid: entry_of(pid, 0))
        for read in readers:
            with pytest.raises(FileNotFoundError):
                read(GONE)
            with unprivileged(), pytest.raises(PermissionError):
                read(VAULT)
        for read in (procfs.read_stat, procfs.read_status, procfs.read_cgroup, procfs.threads_of):
            with pytest.raises(FileNotFoundError):
                read(GONE)

    def test_links(self) -> None:
        assert procfs.exe(WEB) == "/opt/web/bin/web"
        assert procfs.exe(GONE) == ""
        assert procfs.namespace(WEB, "pid") == procfs.FIRST_NAMESPACES["pid"] == procfs.namespace(procfs.SELF, "pid")
        assert procfs.namespace(WEB, "mnt") == 4026532000
        assert procfs.namespace(procfs.SELF, "user") == 4026532100
        assert procfs.namespace(GONE, "pid") is None

    def test_open_files(self, machine: Path) -> None:
        found = dict(procfs.descriptors(WEB))
        assert found.keys() == {"0", "3"}  # the socket leads nowhere
        assert found["0"].st_ino == (machine / "made").stat().st_ino
        assert procfs.read_link(procfs.descriptor(WEB, 4)) == "socket:[31]"
        assert procfs.descriptors(GONE) == []

    def test_sums(self) -> None:
        with unprivileged():
            rollups = read_rollups()
        web, worker = rollups.rows
        assert (web.pid, web.comm, web.rss, web.pss, web.uss, web.swap, web.page_tables) == (
            *(WEB, "web (main)", 36 << 10, 20 << 10, 4 << 10, 8 << 10, 44 << 10),
        )
        assert worker.uss == 8 << 10
        assert (rollups.ended, rollups.refused) == (1, 1)  # a thread of the kernel counts as neither


def test_a_map_that_contradicts_itself_is_not_believed(machine: Path) -> None:
    with (machine / f"proc/{WEB}/maps").open("a") as maps:
        maps.write("55d000000000-55d000001000 r-xp 00000000 00:00 0\n")
    with pytest.raises(ProcessLookupError, match="does not hold still"):
        procfs.read_maps(WEB)


# -- cgroups -----------------------------------------------------------------------------------------------------------


def test_cgroups_of_the_unified_hierarchy(machine: Path) -> None:
    assert procfs.read_cgroup(WEB) == "/system.slice/web.service"
    assert procfs.pids_of_cgroup("system.slice/web.service/") == [WEB, WORKER]
    assert procfs.pids_of_cgroup("/") == [WEB, WORKER, KTHREAD, VAULT]
    hierarchy = memcg.hierarchy()
    assert hierarchy == memcg.Hierarchy(2, Path("/sys/fs/cgroup"), whole=True)
    top = machine / "sys/fs/cgroup"
    service = memcg.cgroup_of((top / "system.slice/web.service").stat().st_ino)
    assert service is not None
    assert (service.path, service.usage, service.root) == ("/system.slice/web.service", 81920, False)
    assert service.reclaimer == "memory.reclaim"
    root = memcg.cgroup_of(top.stat().st_ino)
    assert root is not None and (root.path, root.usage, root.root) == ("/", None, True)
    assert memcg.cgroup_of(0) is None is memcg.cgroup_of((machine / "sys").stat().st_ino)


def test_the_top_of_a_namespace_of_cgroups_is_not_the_root(machine: Path) -> None:
    top = machine / "sys/fs/cgroup"
    (top / "memory.current").write_text("4096\n")
    group = memcg.cgroup_of(top.stat().st_ino)
    assert group is not None and (group.path, group.usage, group.root) == ("/", 4096, False)


def test_a_unified_hierarchy_without_the_controller_is_none(machine: Path) -> None:
    (machine / "sys/fs/cgroup/cgroup.controllers").write_text("cpu io\n")
    assert memcg.hierarchy() is None is memcg.cgroup_of(1)
    (machine / "sys/fs/cgroup/cgroup.controllers").unlink()
    assert memcg.hierarchy() is None


@pytest.mark.parametrize("name", ["v1", "hybrid"])
def test_cgroups_of_a_hierarchy_of_its_own(name: str) -> None:
    with recorded(name) as machine:
        assert procfs.read_cgroup(WEB) == "/app/web"
        assert procfs.pids_of_cgroup("/app") == [WEB]
        assert procfs.pids_of_cgroup("/user.slice") == []
        assert memcg.hierarchy() == memcg.Hierarchy(1, Path("/sys/fs/cgroup/memory"), whole=True)
        top = machine / "sys/fs/cgroup/memory"
        group, root = (memcg.cgroup_of(path.stat().st_ino) for path in (top / "app/web", top))
        assert group is not None and (group.path, group.usage, group.root) == ("/app/web", 40000, False)
        assert group.reclaimer == "memory.force_empty"
        assert root is not None and (root.path, root.usage, root.root) == ("/", 500000, True)


# -- the machine -------------------------------------------------------------------------------------------------------


def test_what_is_known_of_the_machine(machine: Path) -> None:
    assert procfs.file_systems()[os.makedev(0, 42)] == "btrfs"
    assert procfs.file_systems()[os.makedev(254, 0)] == "ext4"
    assert os.makedev(0, 27) in procfs.shmem_devices() and os.makedev(254, 0) not in procfs.shmem_devices()
    assert procfs.doomed_segments() == {7}
    assert procfs.swap_areas() == ["/dev/zram0", "/swap/file\\040one"] and procfs.nr_swap_areas() == 2
    assert procfs.meminfo("Cached") == 123456 << 10
    assert procfs.meminfo("SwapFree") == 1114096 << 10
    assert procfs.meminfo("Swap") == 0
    assert procfs.vmstat() == {"pswpin": 3, "pswpout": 8, "thp_split_page": 0}
    assert procfs.sysctl("vm/page-cluster") == "3"
    assert procfs.cpu_flags() == {"fpu", "vme", "la57", "lm"}
    assert procfs.own_mount_options() == ["rw", "relatime", "hidepid=invisible"]
    assert (sysfs.value("kernel/mm/ksm/run"), sysfs.ksm_items(), sysfs.zram_devices()) == ("1", 42, ["zram0", "zram1"])


def test_what_a_kernel_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mounts").write_text("tmpfs /proc tmpfs rw 0 0\n")
    (tmp_path / "proc/cpuinfo").write_text("processor : 0\n")
    with rooted(tmp_path):
        assert (procfs.nr_swap_areas(), procfs.doomed_segments(), procfs.cpu_flags()) == (0, set(), set())
        assert (procfs.own_mount_options(), sysfs.value("kernel/mm/ksm/run")) == (None, None)
        assert (sysfs.ksm_items(), sysfs.zram_devices()) == (0, [])
        for read in (procfs.vmstat, procfs.swap_areas, lambda: procfs.sysctl("vm/page-cluster")):
            with pytest.raises(FileNotFoundError):
                read()
        with pytest.raises(NotPermitted, match="no /proc/kpagecount"):
            open_kpage("kpagecount")


def test_options_of_the_kernel(machine: Path) -> None:
    by_traces = read_config("6.1.0")
    assert (by_traces.path, by_traces.options) == ("", frozenset())
    assert by_traces.has("SWAP") and by_traces.has("KSM") and by_traces.has("PROC_PAGE_MONITOR")
    assert by_traces.has("DEBUG_INFO_BTF") is False
    assert by_traces.has("MEMCG") is None
    assert mapcount_kind("6.1.0") == "precise"
    (machine / "boot").mkdir()
    (machine / "boot/config-6.1.0").write_text("# CONFIG_KSM is not set\nCONFIG_SWAP=y\nCONFIG_NO_PAGE_MAPCOUNT=y\n")
    config = read_config("6.1.0")
    assert (config.path, config.has("SWAP"), config.has("KSM"), config.has("MEMCG")) == (
        "/boot/config-6.1.0",
        True,
        False,
        False,
    )
    assert mapcount_kind("6.1.0") == "average"


# -- entries and frames ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("machine")
class TestFrames:
    def test_entries(self) -> None:
        assert entry_of(WEB, HEAP + 5) == 1 << 63 | 0x100
        assert slot_of(entry_of(WEB, HEAP + 2 * PAGE_SIZE)) == (1, 5)
        assert slot_of(entry_of(WEB, HEAP + 5 * PAGE_SIZE)) is None  # a migration entry
        with Pagemap(WEB) as pagemap:
            address, entry = pagemap.read([(HEAP, HEAP + 16 * PAGE_SIZE)])
        assert ((address - HEAP) // PAGE_SIZE).tolist() == [0, 1, 2, 3, 4, 5]
        assert (entry[[0, 1]] & 0xFFFF).tolist() == [0x100, 0x101]
        with unprivileged(), pytest.raises(PermissionError):
            Pagemap(VAULT)

    def test_counts_and_folios(self) -> None:
        assert (count_of(0x100), count_of(1 << 40)) == (2, 0)
        one, tail, free, beyond = (page_at(pfn) for pfn in (0x100, 0x406, 0x408, 1 << 40))
        assert (one.kind, one.order, one.head) == (f.ANON, 0, 0x100)
        assert (tail.kind, tail.order, tail.head, tail.torn) == (f.ANON, 2, 0x404, False)
        assert free.order == 0
        assert beyond.flags == KPF_NOPAGE and beyond.kind == f.DEVICE
        assert read_counts(np.array([0x100, 0x101])).tolist() == [2, 1]

    def test_columns_of_frames_need_their_cgroups(self, machine: Path) -> None:
        with pytest.raises(NotPermitted, match="no /proc/kpagecgroup"):
            read_page_state(np.array([0x406]), np.array([1]))
        (machine / "proc/kpagecgroup").write_bytes(bytes(8) * 0x500)
        state = read_page_state(np.array([0x406]), np.array([1]))
        assert state.pfn.tolist() == [0x404, 0x405, 0x406, 0x407]
        assert state.head_offset.tolist() == [0, 1, 2, 3] and set(state.order.tolist()) == {2}


def asked(key: str) -> Who:
    answer = look_up(parse_key(key))
    assert isinstance(answer, Who)
    return answer


@pytest.mark.usefixtures("machine")
class TestLookUp:
    """One page is looked up on a recorded machine as on the running one, by each of its ways."""

    def test_at_the_same_address(self) -> None:
        answer = asked(f"{WEB}:{HEAP:#x}")
        assert (answer.pfn, answer.status, answer.kind) == (0x100, "complete", "anon")
        assert [(one.pid, one.address, one.comm) for one in answer.mappings] == [
            (WEB, HEAP, "web (main)"),
            (WORKER, HEAP, "web) S 1 (x"),
        ]
        assert answer.found_by == "same address in the fork family (2)"

    def test_in_every_area_of_a_file(self) -> None:
        answer = asked(f"{WORKER}:0x55d000001000")
        assert (answer.status, answer.found, answer.file, answer.file_offset) == (
            "complete",
            2,
            "/opt/web/bin/web",
            4096,
        )
        assert answer.found_by == "dev:inode and offset in every VMA of the file"

    def test_of_a_file_that_has_no_name_here(self) -> None:
        answer = asked("/memfd:two\nlines@8192")
        assert (answer.pfn, answer.status, answer.found) == (0x300, "complete", 2)
        nothing = look_up(parse_key("/memfd:two\nlines@4096"))
        assert isinstance(nothing, NoPage) and nothing.reason.startswith("no process maps page 1 of ")

    def test_what_was_moved_is_found_by_a_scan_of_the_rest(self) -> None:
        waits: list[str] = []
        answer = look_up(parse_key(f"{WEB}:{HEAP + 3 * PAGE_SIZE:#x}"), say=waits.append)
        assert isinstance(answer, Who)
        assert (answer.status, [one.address for one in answer.mappings]) == ("complete", [HEAP + 0x3000, HEAP + 0x8000])
        assert answer.found_by == "same address in the fork family (1), then a scan of the rest (1)"
        assert waits == ["searching every page table"]

    def test_a_frame_is_scanned_for_until_it_is_found(self) -> None:
        answer = asked("pfn:0x200")
        assert (answer.status, answer.found) == ("complete", 2)
        assert answer.found_by in (
            "a scan of every page table",  # whoever scans ahead may have found both
            "a scan until it was found (1), then dev:inode and offset in every VMA of the file",
        )
        assert asked("pfn:0x101").found_by == "a scan of every page table"
        assert asked("pfn:0x107").found_by == "the kernel's own count: nothing maps it"

    def test_a_slot_of_swap(self) -> None:
        answer = asked("swap:1:5")
        assert (answer.status, [one.pid for one in answer.mappings]) == ("approximate", [WEB, WORKER])
        assert answer.found_by == "a scan of every page table"

    @pytest.mark.parametrize("hits", [1, 3])  # areas are read one by one, or all at once
    def test_whoever_lost_its_memory_meanwhile_maps_nothing_and_is_a_race(self, hits: int) -> None:
        of_dead = [Hit(KTHREAD, HEAP + page * PAGE_SIZE) for page in range(hits)]
        assert mappings_of(of_dead) == ([], True)
        of_both = [*(Hit(WEB, HEAP + page * PAGE_SIZE) for page in range(-1, hits)), *of_dead]
        mappings, gone = mappings_of(of_both)
        assert gone and [one.mapping.address for one in mappings] == [HEAP + page * PAGE_SIZE for page in range(hits)]

    def test_what_is_missing_has_a_reason(self) -> None:
        with unprivileged():
            answer = asked(f"{WEB}:{HEAP + 4 * PAGE_SIZE:#x}")
        assert (answer.status, answer.found, answer.mapcount) == ("hidden", 1, 2)
        refusal, end = answer.hidden
        assert refusal == f"process {VAULT} (vault, uid {os.geteuid()}) does not show its memory to this user"
        assert end == "1 process ended while the page was looked for"
