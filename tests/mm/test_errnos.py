"""Which errno an odd argument gets. All of them were asked of Linux 6.18."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from rmap import Kernel, SyscallError
from rmap.kernel.process import OpenFile, Process
from tests.support import PAGE

BASE = 0x10000000
WORD = 1 << 64


@pytest.fixture
def kernel() -> Kernel:
    return Kernel(nr_pages=256)


@pytest.fixture
def process(kernel: Kernel) -> Process:
    made = kernel.spawn()
    made.mmap(4 * PAGE, addr=BASE)
    made.write(BASE, 4 * PAGE)
    return made


def refused(expected: int, call: Callable[..., object], *args: object, **how: object) -> None:
    with pytest.raises(SyscallError) as refusal:
        call(*args, **how)
    assert errno.errorcode[refusal.value.errno or 0] == errno.errorcode[expected]


@pytest.mark.parametrize("length", [WORD - 1, WORD - PAGE + 1])
def test_mlock_of_a_length_that_wraps_to_nothing(process: Process, length: int) -> None:
    process.mlock(BASE, length)
    process.munlock(BASE, length)
    assert not process.mm.locked_vm
    refused(errno.EINVAL, process.mlock, BASE, WORD - PAGE)


def test_mremap_to_less_unmaps_nothing_beyond_the_address_space(process: Process) -> None:
    for old_size in (1 << 47, 1 << 63, WORD - 3 * PAGE):
        refused(errno.EINVAL, process.mremap, BASE, old_size, PAGE, maymove=False)
    assert process.maps()[0].end == BASE + 4 * PAGE


def test_mremap_compares_ranges_in_64_bits(process: Process) -> None:
    # The old range ends below its start, so it does not overlap the new one; but it leaves the area.
    refused(errno.EFAULT, process.mremap, BASE, WORD - PAGE, 8 * PAGE, BASE + 16 * PAGE)
    refused(errno.EINVAL, process.mremap, BASE, WORD - 1, PAGE, BASE + 16 * PAGE)


def test_only_devices_have_pages_behind_the_largest_file(kernel: Kernel, process: Process) -> None:
    largest = (1 << 63) - PAGE
    for shmem in (False, True):
        file = kernel.open(f"file {shmem}", PAGE, shmem=shmem)
        process.mmap(PAGE, file=file, offset=largest - PAGE)
        refused(errno.EOVERFLOW, process.mmap, PAGE, file=file, offset=largest)
    zero = kernel.open("/dev/zero")
    at = process.mmap(2 * PAGE, file=zero, offset=largest)
    process.write(at, 2 * PAGE)
    refused(errno.EOVERFLOW, process.mmap, PAGE, file=zero, offset=WORD - PAGE)
    kernel.check()


def test_noreplace_is_about_a_fixed_address(process: Process) -> None:
    refused(errno.EEXIST, process.mmap, PAGE, addr=BASE, noreplace=True)
    assert process.mmap(PAGE, noreplace=True) == process.mmap(PAGE, hint=BASE, noreplace=True) + PAGE


def test_ftruncate_and_fallocate_want_a_file_that_is_open_for_writing(kernel: Kernel) -> None:
    kernel.open("file", 4 * PAGE)
    read_only: OpenFile = kernel.open("file", writable=False)
    refused(errno.EINVAL, read_only.truncate, PAGE)
    refused(errno.EBADF, read_only.punch_hole, 0, PAGE)
    refused(errno.EINVAL, read_only.punch_hole, 0, 0)
    zero = kernel.open("/dev/zero")
    refused(errno.EINVAL, zero.truncate, 0)
    refused(errno.ENODEV, zero.punch_hole, 0, PAGE)
    file = kernel.open("file")
    refused(errno.EINVAL, file.truncate, -1)
    refused(errno.EINVAL, file.punch_hole, -1, PAGE)
    refused(errno.EFBIG, file.punch_hole, 1 << 62, 1 << 62)
    assert file.size == 4 * PAGE


def test_remove_wants_a_file_first_and_a_shared_mapping_then(kernel: Kernel, process: Process) -> None:
    refused(errno.EINVAL, process.madvise, BASE, PAGE, "remove")
    private = process.mmap(PAGE, file=kernel.open("/dev/zero"))
    refused(errno.EACCES, process.madvise, private, PAGE, "remove")
    shared = process.mmap(PAGE, file=kernel.open("/dev/zero"), flags="shared", populate=True)
    process.madvise(shared, PAGE, "remove")
    assert kernel.pfn(process, shared) is None
    kernel.check()


@pytest.mark.parametrize(
    ("profile", "kind", "refusing"),
    [
        ("6.18", "vdso", {"dodump", "free", "remove", "populate_write"}),
        ("7.0", "vdso", {"dodump", "free", "remove", "populate_write", "dofork"}),
        (
            "6.18",
            "pfnmap",
            {"dodump", "dofork", "free", "remove", "populate_read", "populate_write", "cold", "dontneed", "pageout",
             "wipeonfork"},
        ),
    ],
)  # fmt: skip
def test_advice_about_pages_of_the_kernel(profile: str, kind: str, refusing: set[str]) -> None:
    kernel = Kernel(nr_pages=64, profile=profile)
    process = kernel.spawn()
    at = process.map_kernel_pages(2, kind)
    advice = refusing | {"dontdump", "hugepage", "nohugepage", "dontfork", "keeponfork", "normal", "willneed"}
    for each in sorted(advice):
        if each in refusing:
            refused(errno.EINVAL, process.madvise, at, 2 * PAGE, each)
        else:
            process.madvise(at, 2 * PAGE, each)
    kernel.check()
