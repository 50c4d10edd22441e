"""The kernel's special mappings, whole or not at all: the vDSO of a real process, and the model's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from errno import EINVAL
from typing import Any

import pytest

from rmap import Kernel
from rmap.errors import SyscallError

# Makes each call on the first page of its own vDSO, then on all of it, and prints the errno of each.
REAL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.mremap.restype = ctypes.c_long
start, end = next([int(part, 16) for part in line.split()[0].split("-")] for line in open("/proc/self/maps")
                  if line.rstrip().endswith("[vdso]"))
said = []
for size in (4096, end - start):
    at, length = ctypes.c_void_p(start), ctypes.c_size_t(size)
    moved = (length, length, 3, ctypes.c_void_p(0x200000000000))
    calls = ((libc.mprotect, length, 1), (libc.madvise, length, 10), (libc.mremap, *moved))
    if size == 4096:
        calls = ((libc.munmap, length), *calls)
    for call, *args in calls:
        said.append(ctypes.get_errno() if call(at, *args) == -1 else 0)
os.write(1, " ".join(map(str, said)).encode())
os._exit(0)
"""


def errno_of(call: Callable[..., Any], *args: Any) -> int:
    try:
        call(*args)
    except SyscallError as refusal:
        return refusal.errno or 0
    return 0


@pytest.mark.live
def test_a_part_of_a_special_mapping_is_refused_as_the_kernel_does() -> None:
    done = subprocess.run([sys.executable, "-S", "-c", REAL], capture_output=True, text=True, check=True)
    p = Kernel(nr_pages=64).spawn()
    start = p.map_kernel_pages(2)
    said = [errno_of(p.munmap, start, 4096)]
    for size in (4096, 8192):
        said.append(errno_of(p.mprotect, start, size, "r"))
        said.append(errno_of(p.madvise, start, size, "dontfork"))
        said.append(errno_of(p.mremap, start, size, size, 0x200000000000))
    assert list(map(int, done.stdout.split())) == said
    assert said == [EINVAL] * 4 + [0] * 3
    assert [str(row) for row in p.maps()] == ["200000000000-200000002000 r--p 00000000"]


def test_device_memory_may_be_cut() -> None:
    process = Kernel(nr_pages=64).spawn()
    start = process.map_kernel_pages(4, "pfnmap")
    process.munmap(start + 4096, 4096)
    assert len(process.maps()) == 2
