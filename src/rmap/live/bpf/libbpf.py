"""libbpf.so.1 through ctypes: load a compiled object, run its programs, read its iterators and maps.

This is the one module that knows libbpf. Nothing is pinned: programs, maps and links are file descriptors of this
process and gone with it, however it ends.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from rmap.columns import I64
from rmap.errors import NotPermitted
from rmap.live.sources import procfs

_CAP_SYS_ADMIN, _CAP_BPF = 21, 39
BTF = Path("/sys/kernel/btf/vmlinux")
_VOID, _INT, _TEXT = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "bpf_object__open_file": (_VOID, [_TEXT, _VOID]),
    "bpf_object__load": (_INT, [_VOID]),
    "bpf_object__close": (None, [_VOID]),
    "bpf_object__find_program_by_name": (_VOID, [_VOID, _TEXT]),
    "bpf_object__find_map_by_name": (_VOID, [_VOID, _TEXT]),
    "bpf_program__fd": (_INT, [_VOID]),
    "bpf_program__attach": (_VOID, [_VOID]),
    "bpf_program__attach_iter": (_VOID, [_VOID, _VOID]),
    "bpf_map__fd": (_INT, [_VOID]),
    "bpf_map__set_max_entries": (_INT, [_VOID, ctypes.c_uint32]),
    "bpf_link__fd": (_INT, [_VOID]),
    "bpf_link__destroy": (_INT, [_VOID]),
    "bpf_iter_create": (_INT, [_INT]),
    "bpf_map_update_elem": (_INT, [_INT, _VOID, _VOID, ctypes.c_uint64]),
    "bpf_map_lookup_elem": (_INT, [_INT, _VOID, _VOID]),
    "bpf_map_delete_elem": (_INT, [_INT, _VOID]),
    "bpf_prog_test_run_opts": (_INT, [_INT, _VOID]),
}
_Printer = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class _TestRun(ctypes.Structure):
    # struct bpf_test_run_opts
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("data_in", _VOID),
        ("data_out", _VOID),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", _VOID),
        ("ctx_out", _VOID),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """libbpf, with the types of the functions that are used.

    Raises:
        NotPermitted: it is not installed.
    """
    try:
        lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError:
        raise refusal("libbpf.so.1 (Debian: libbpf1, Fedora: libbpf)") from None
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    lib.libbpf_set_print.restype = _VOID
    lib.libbpf_set_print(_keeper)
    return lib


def refusal(missing: str) -> NotPermitted:
    """The error of everything that needs BPF and cannot have it.

    Args:
        missing: what is missing, in words.
    """
    return NotPermitted(
        "the kernel's own anon_vmas and struct pages cannot be read here",
        needed=missing,
        works="whatever /proc answers: rmap who, rmap snap, rmap check",
    )


_messages: list[str] = []


def _keep_message(level: int, template: bytes, arguments: int) -> int:
    # libbpf would print to stderr; what it says is kept, as the reason of a refusal.
    text = ctypes.create_string_buffer(1 << 12)
    ctypes.CDLL(None).vsnprintf(text, ctypes.c_size_t(len(text)), template, ctypes.c_void_p(arguments))
    if level == 0:
        _messages.append(text.value.decode(errors="replace").strip())
    return 0


_keeper = _Printer(_keep_message)


class BpfObject:
    """A loaded object file.

    Args:
        path: the compiled programs (``*.bpf.o``).
        max_entries: sizes of maps that differ from the compiled ones, by name.

    Raises:
        NotPermitted: no libbpf, no such file (built without clang), no type information in this kernel, or the kernel
            refuses; the reason is in ``needed``.
    """

    def __init__(self, path: Path, max_entries: dict[str, int] | None = None) -> None:
        self._lib = library()
        self._links: list[int] = []
        self._object: int | None = None
        if not path.is_file():
            raise refusal(f"compiled BPF programs: this rmap was built without clang ({path.name} is missing)")
        if not BTF.exists():
            raise refusal("a kernel with type information (CONFIG_DEBUG_INFO_BTF)")
        _messages.clear()
        self._object = self._lib.bpf_object__open_file(os.fsencode(path), None)
        if not self._object:
            raise refusal(f"BPF programs that libbpf can read: {_said(ctypes.get_errno())}")
        try:
            for name, entries in (max_entries or {}).items():
                self._lib.bpf_map__set_max_entries(self._map(name), entries)
        except BaseException:
            self.close()
            raise
        error = -self._lib.bpf_object__load(self._object)
        if error:
            self.close()
            raise refusal(_why_refused(error))

    def close(self) -> None:
        """Detach and unload everything."""
        for link in self._links:
            self._lib.bpf_link__destroy(link)
        self._links.clear()
        if self._object:
            self._lib.bpf_object__close(self._object)
            self._object = None

    def __enter__(self) -> BpfObject:
        return self

    def __exit__(self, *stopped_by: object) -> None:
        self.close()

    def program(self, name: str) -> int:
        """The file descriptor of a program."""
        return int(self._lib.bpf_program__fd(self._program(name)))

    def attach(self, name: str) -> None:
        """Attach a program to what its section names, until :meth:`close`.

        Raises:
            NotPermitted: the kernel refuses.
        """
        link = self._lib.bpf_program__attach(self._program(name))
        if not link:
            raise refusal(f"attaching {name}: {_said(ctypes.get_errno())}")
        self._links.append(link)

    def iterator(self, name: str) -> Iterator:
        """An iterator program, ready to be read any number of times."""
        link = self._lib.bpf_program__attach_iter(self._program(name), None)
        if not link:
            raise refusal(f"attaching {name}: {_said(ctypes.get_errno())}")
        self._links.append(link)
        return Iterator(self._lib, int(self._lib.bpf_link__fd(link)))

    def map(self, name: str) -> BpfMap:
        """A map of the object."""
        return BpfMap(self._lib, int(self._lib.bpf_map__fd(self._map(name))))

    def _program(self, name: str) -> int:
        return int(self._lib.bpf_object__find_program_by_name(self._object, name.encode()) or _missing("program", name))

    def _map(self, name: str) -> int:
        return int(self._lib.bpf_object__find_map_by_name(self._object, name.encode()) or _missing("map", name))


class Iterator:
    """A BPF iterator: every reading of it runs the program over all the kernel's objects of its kind."""

    def __init__(self, lib: ctypes.CDLL, link: int) -> None:
        self._lib = lib
        self._link = link

    def read(self) -> bytes:
        """Everything the program wrote.

        Raises:
            OSError: the kernel ended the iteration.
        """
        fd = self._lib.bpf_iter_create(self._link)
        if fd < 0:
            raise OSError(-fd, os.strerror(-fd))
        pieces: list[bytes] = []
        try:
            while True:
                try:
                    piece = os.read(fd, 1 << 20)
                except BlockingIOError:  # the iterator asks for a pause after a million objects that it left out
                    continue
                if not piece:
                    return b"".join(pieces)
                pieces.append(piece)
        finally:
            os.close(fd)


class BpfMap:
    """A map whose keys are numbers of 32 bits."""

    def __init__(self, lib: ctypes.CDLL, fd: int) -> None:
        self._lib = lib
        self.fd = fd

    def set(self, key: int, value: bytes) -> None:
        """Write one element.

        Raises:
            OSError: the map is full.
        """
        self._checked(self._lib.bpf_map_update_elem(self.fd, ctypes.byref(ctypes.c_uint32(key)), value, 0))

    def get(self, key: int, size: int) -> bytes:
        """Read one element of so many bytes.

        Raises:
            OSError: there is none.
        """
        value = ctypes.create_string_buffer(size)
        self._checked(self._lib.bpf_map_lookup_elem(self.fd, ctypes.byref(ctypes.c_uint32(key)), value))
        return value.raw

    def delete(self, key: int) -> None:
        """Remove one element, if it is there."""
        with suppress(FileNotFoundError):
            self._checked(self._lib.bpf_map_delete_elem(self.fd, ctypes.byref(ctypes.c_uint32(key))))

    @staticmethod
    def _checked(result: int) -> None:
        if result < 0:
            raise OSError(-result, os.strerror(-result))


def run(program: int, context: I64) -> None:
    """Run a ``syscall`` program once.

    Args:
        program: its file descriptor.
        context: int64 column: its argument, which it may change.

    Raises:
        OSError: the kernel refuses to run it, or it ends with something else than 0.
    """
    options = _TestRun(size=ctypes.sizeof(_TestRun), ctx_in=context.ctypes.data, ctx_size_in=context.nbytes)
    result = library().bpf_prog_test_run_opts(program, ctypes.byref(options))
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    if options.retval:
        raise OSError(errno.EFAULT, "the kernel's memory could not be read")


def _missing(what: str, name: str) -> NoReturn:
    raise refusal(f"BPF programs of this version of rmap: the {what} {name} is not in the compiled ones")


def _why_refused(error: int) -> str:
    if error in (errno.EPERM, errno.EACCES) and not _may_load():
        return "CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN (loading BPF programs)"
    return f"a kernel that takes the BPF programs: {_said(error)}"


def _may_load() -> bool:
    # Whether this process has one of the capabilities that loading takes: root without them is nobody here.
    return bool(procfs.capabilities() & (1 << _CAP_SYS_ADMIN | 1 << _CAP_BPF))


def _said(error: int) -> str:
    # What libbpf complained about, in one line; it says most in the message before the last.
    complaints = [line for message in _messages for line in message.splitlines() if line.startswith("libbpf:")]
    reason = os.strerror(error)
    return f"{reason} ({complaints[0].removeprefix('libbpf:').strip()})" if complaints else reason
