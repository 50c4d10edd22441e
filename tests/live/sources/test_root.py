"""Only ``rmap.live.sources`` reads /proc and /sys, and whatever it reads can be read from a recorded folder instead."""

from __future__ import annotations

import ast
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import rmap
from rmap.live.sources import procfs
from rmap.live.sources.root import root_path, rooted

SOURCE = Path(rmap.__file__).parent
SHOWN = re.compile(r"/(?:proc|sys|boot|lib/modules|dev(?!/zero|/shm))(?:/|$)")
"""How a path begins under which the kernel shows or takes something; memory has names in /dev, too."""

ALLOWED = {
    # For the kernel, not for us: a path to write to, or for a library that opens it.
    "lab/conform/swap.py": ["/dev", "/proc/sys/vm/page-cluster", "/sys/block", "/sys/class/zram-control"],
    "live/undo.py": ["/sys/block/", "/sys/class/zram-control/hot_remove"],
    "live/bpf/libbpf.py": ["/sys/kernel/btf/vmlinux"],
    # Words for a reader.
    "live/doctor/abilities.py": ["/proc/", "/proc/PID/pagemap ("],
    # What a name in a memory map or behind a descriptor begins with.
    "live/files/open_files.py": ["/proc/", "/sys/"],
    "live/record/by_perf.py": ["/dev/"],
}
"""What else may say such a path, and which."""

NOT_ROOTED = {
    "areas.py": ["/proc/self/maps"],  # our own, where a file is mapped for a moment
    "kernel_config.py": [
        *("/boot/config-", "/lib/modules/", "/proc/config.gz", "/proc/kpagecount", "/proc/swaps"),
        *("/proc/sys/vm/memory_failure_recovery", "/sys/kernel/btf/vmlinux", "/sys/kernel/mm/ksm"),
        "/sys/kernel/mm/transparent_hugepage",
    ],  # tables, each path of which is handed to root_path
    "kpage.py": ["/proc/"],  # words for a reader
    "procfs.py": ["/proc", "/proc/self/fd/"],  # a mount to look for in a list; our own open files
}
"""What sources say without :func:`root_path`."""


def literals(module: ast.Module) -> Iterator[tuple[str, bool]]:
    """Every text that begins like a path of the kernel's, without docstrings; whether it is handed to root_path."""
    docstrings = {node.value for node in ast.walk(module) if isinstance(node, ast.Expr)}
    handed = {
        inside
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "root_path"
        for inside in ast.walk(node)
    }
    for node in ast.walk(module):
        text = node.value if isinstance(node, ast.Constant) and node not in docstrings else None
        if isinstance(text, str) and SHOWN.match(text):
            yield text, node in handed


def test_nothing_else_reads_proc_or_sys() -> None:
    said = {}
    for path in SOURCE.rglob("*.py"):
        name = str(path.relative_to(SOURCE))
        if texts := sorted({text for text, _ in literals(ast.parse(path.read_text()))}):
            said[name] = texts
    outside = {name: texts for name, texts in said.items() if not name.startswith("live/sources/")}
    assert outside == ALLOWED


def test_whatever_sources_read_has_a_root() -> None:
    said = {}
    for path in (SOURCE / "live/sources").glob("*.py"):
        if texts := sorted({text for text, handed in literals(ast.parse(path.read_text())) if not handed}):
            said[path.name] = texts
    assert said == NOT_ROOTED


def test_such_a_path_is_found_wherever_it_stands() -> None:
    text = '''
"""/proc/in a docstring."""
def f(pid, kind="/sys/default"):
    """/proc/in another."""
    open(f"/proc/{pid}/maps"), open("/dev/kmem"), os.stat(root_path(f"/proc/{pid}"))
    return ["no /proc/here", "/dev/zero", "/process", Path("/proc") / "swaps"]
'''
    without = [("/dev/kmem", False), ("/proc", False), ("/proc/", False), ("/sys/default", False)]
    assert sorted(literals(ast.parse(text))) == sorted([*without, ("/proc/", True)])


def test_a_root_holds_for_all_threads_and_ends_with_its_block(tmp_path: Path) -> None:
    (tmp_path / "proc/5000001").mkdir(parents=True)
    seen: list[list[int]] = []
    with rooted(tmp_path):
        thread = threading.Thread(target=lambda: seen.append(procfs.pids()))
        thread.start()
        thread.join()
        with rooted(tmp_path / "inner"):
            assert root_path("/proc") == f"{tmp_path}/inner/proc"
        assert root_path("/proc") == f"{tmp_path}/proc"
    assert seen == [[5000001]]
    assert root_path("/proc") == "/proc" and 1 in procfs.pids()
