"""Numbers of system calls (arch/x86/entry/syscalls/syscall_64.tbl, scripts/syscall.tbl; Linux 6.18)."""

from __future__ import annotations

NR = {
    "open": 2, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "mremap": 25, "msync": 26, "mincore": 27,
    "madvise": 28, "shmget": 29, "shmat": 30, "shmctl": 31, "clone": 56, "fork": 57, "vfork": 58, "execve": 59,
    "exit": 60, "shmdt": 67, "truncate": 76, "ftruncate": 77, "creat": 85, "ptrace": 101, "mlock": 149, "munlock": 150,
    "mlockall": 151, "munlockall": 152, "prctl": 157, "io_setup": 206, "io_destroy": 207, "remap_file_pages": 216,
    "exit_group": 231, "mbind": 237, "set_mempolicy": 238, "get_mempolicy": 239, "migrate_pages": 256, "openat": 257,
    "splice": 275, "vmsplice": 278, "move_pages": 279, "fallocate": 285, "process_vm_readv": 310,
    "process_vm_writev": 311, "kcmp": 312, "memfd_create": 319, "execveat": 322, "userfaultfd": 323, "mlock2": 325,
    "pkey_mprotect": 329, "pkey_alloc": 330, "pkey_free": 331, "io_uring_setup": 425, "io_uring_enter": 426,
    "io_uring_register": 427, "pidfd_open": 434, "clone3": 435, "openat2": 437, "process_madvise": 440,
    "memfd_secret": 447, "set_mempolicy_home_node": 450, "cachestat": 451, "map_shadow_stack": 453, "mseal": 462,
}  # fmt: skip
"""On x86-64: those that may come up in a trace, or are called here by number."""

NAMES = {number: name for name, number in NR.items()}

SHARED_FROM = 424
"""From this number on every machine has the same."""
GENERIC = {"kcmp": 272}
"""What differs in the table of arm64 and riscv64."""


def number_here(name: str, machine: str) -> int | None:
    """The number of a call on a machine (``os.uname().machine``), None if it is not known."""
    if machine == "x86_64" or NR[name] >= SHARED_FROM:
        return NR[name]
    return GENERIC.get(name) if machine in ("aarch64", "riscv64") else None
