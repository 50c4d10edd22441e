"""The kernel's numbers against its own headers, where they are installed (linux-libc-dev)."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rmap.uapi import kpageflags, mman, pagemap, unistd, vm_flags
from tests.support.needs import need

INCLUDE = Path("/usr/include")


def defined(*names: str) -> dict[str, int]:
    """What some headers define as plain numbers."""
    folders = (INCLUDE, INCLUDE / f"{platform.machine()}-linux-gnu")
    found: dict[str, int] = {}
    for name in names:
        path = next((folder / name for folder in folders if (folder / name).is_file()), None)
        need(None if path is not None else f"the kernel's headers: {name} (linux-libc-dev)")
        assert path is not None
        text = re.sub(r"(?m)^#define\s+(\w+)\s+0([0-7]+)\b", r"#define \1 0o\2", path.read_text())
        for symbol, value in re.findall(r"(?m)^#define\s+(\w+)\s+(0x[0-9a-fA-F]+|0o[0-7]+|\d+)\b", text):
            found[symbol] = int(value, 0)
    return found


def numbers(module: object, *prefixes: str) -> Iterator[tuple[str, int]]:
    named = ((name, value) for name, value in vars(module).items() if name.startswith(prefixes))
    return ((name, value) for name, value in named if isinstance(value, int))


def test_arguments_of_calls() -> None:
    memory = ("asm-generic/mman-common.h", "asm-generic/mman.h", "linux/mman.h")
    headers = defined(*memory, "linux/falloc.h", "linux/shm.h", "linux/prctl.h")
    ours = dict(numbers(mman, "PROT_", "MAP_", "MREMAP_", "MLOCK_", "MCL_", "MADV_", "FALLOC_", "SHM_", "PR_"))
    assert len(ours) > 50
    known = {name: value for name, value in ours.items() if name in headers}
    assert len(known) > 0.9 * len(ours), ours.keys() - headers.keys()
    assert known == {name: headers[name] for name in known}


def test_bits_of_kpageflags() -> None:
    headers = defined("linux/kernel-page-flags.h")
    ours = {name: value for name, value in numbers(kpageflags, "KPF_") if value < 1 << 32}
    assert len(ours) > 15
    assert ours == {name: 1 << headers[name] for name in ours}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64")
def test_numbers_of_calls() -> None:
    headers = defined("asm/unistd_64.h")
    assert {name: headers.get(f"__NR_{name}", number) for name, number in unistd.NR.items()} == unistd.NR
    assert unistd.NAMES[unistd.NR["mmap"]] == "mmap"
    assert unistd.number_here("kcmp", "x86_64") == headers["__NR_kcmp"]


def test_numbers_of_calls_of_other_machines() -> None:
    assert unistd.number_here("kcmp", "aarch64") == defined("asm-generic/unistd.h")["__NR_kcmp"]
    assert unistd.number_here("cachestat", "riscv64") == unistd.NR["cachestat"]
    assert unistd.number_here("mmap", "aarch64") is None
    assert unistd.number_here("kcmp", "s390x") is None


def test_bits_of_pagemap_and_of_areas_do_not_overlap() -> None:
    for module, prefix in ((pagemap, "PM_"), (vm_flags, "VM_")):
        single = [value for name, value in numbers(module, prefix) if value.bit_count() == 1]
        assert len(single) == len(set(single)) > 5
    assert not pagemap.PM_PFRAME_MASK & (pagemap.PM_SOFT_DIRTY | pagemap.PM_PRESENT)


@pytest.mark.parametrize(
    ("flags", "column"),
    [(0, "---p"), (vm_flags.VM_READ | vm_flags.VM_MAYSHARE, "r--s"), (vm_flags.VM_ACCESS, "rwxp")],
)
def test_the_permission_column(flags: int, column: str) -> None:
    assert vm_flags.perms(flags) == column
