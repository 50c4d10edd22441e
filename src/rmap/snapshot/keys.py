"""KEYs: how a reader names a page, and what that names in a picture.

===============  ============================================================================================
``pfn:N``        a page frame
``phys:N``       the frame of a physical address in bytes
``swap:T:O``     slot O of swap area T
``PID:0xADDR``   what a process has at an address
``PID``          a process (all digits)
``PATH@OFFSET``  a page of a file; OFFSET in bytes, decimal, hex or with K, M, G; without ``@``: the file
``file:PATH``    the same, for a path that would be read as one of the others
===============  ============================================================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rmap.errors import UsageError
from rmap.snapshot import flags as f
from rmap.snapshot.selection import row_of
from rmap.units import PAGE_SHIFT, parse_size

if TYPE_CHECKING:
    from rmap.snapshot.picture import Snapshot

_NUMBER = re.compile(r"0x[0-9a-f]+|[0-9]+", re.IGNORECASE)
_ADDRESS = re.compile(r"([0-9]+):(0x[0-9a-f]+)", re.IGNORECASE)
_LIKE_AN_ADDRESS = re.compile(r"(\d+|self):")  # and not one: a slip, rather than a file of such a name
_DELETED = " (deleted)"


@dataclass(frozen=True)
class Key:
    """A KEY, read.

    Attributes:
        kind: ``"pfn"``, ``"swap"``, ``"address"``, ``"process"`` or ``"file"``.
        pfn: of kind pfn (also from ``phys:``).
        swap: of kind swap: area and slot.
        pid, address: of kind address (bytes) and process.
        path, offset: of kind file; bytes.
        whole: of kind file: no offset was given, so that it names the whole file as well as its first page.
    """

    kind: str
    pfn: int = 0
    swap: tuple[int, int] = (0, 0)
    pid: int = 0
    address: int = 0
    path: str = ""
    offset: int = 0
    whole: bool = False


@dataclass(frozen=True)
class Resolved:
    """What a KEY names in a picture.

    Attributes:
        pfn: the frame, None if there is none.
        swap: the swap slot, None if there is none.
        reason: why there is neither: one sentence.
    """

    pfn: int | None = None
    swap: tuple[int, int] | None = None
    reason: str = ""


def parse_key(text: str) -> Key:
    """Read a KEY.

    Raises:
        UsageError: it has none of the forms above.
    """
    prefix, colon, rest = text.partition(":")
    if colon and prefix in ("pfn", "phys"):
        number = _number(rest, text)
        return Key("pfn", pfn=number if prefix == "pfn" else number >> PAGE_SHIFT)
    if colon and prefix == "swap":
        area, second, slot = rest.partition(":")
        if not second:
            raise UsageError(f"not a swap slot: {text!r} (example: swap:0:1234)")
        return Key("swap", swap=(_number(area, text), _number(slot, text)))
    if colon and prefix == "file":
        return _file(rest, text)
    address = _ADDRESS.fullmatch(text)
    if address is not None:
        return Key("address", pid=int(address[1]), address=int(address[2], 16))
    if text.isascii() and text.isdigit():
        return Key("process", pid=int(text))
    if _LIKE_AN_ADDRESS.match(text):
        raise UsageError(f"not an address: {text!r} (example: 4711:0x7f5a176cb000; a file of this name: file:{text})")
    return _file(text, text)


def _number(text: str, whole: str) -> int:
    if _NUMBER.fullmatch(text) is None:
        raise UsageError(f"not a number: {text!r} in {whole!r} (examples: 4096, 0x1000)")
    return int(text, 0) if text[:2].lower() == "0x" else int(text)


def _file(text: str, whole: str) -> Key:
    if not text:
        raise UsageError(f"not a page: {whole!r} (examples: pfn:0x2f8443, 4711:0x7f5a176cb000, /lib/libc.so.6@0x1000)")
    path, at, offset = text.rpartition("@")
    if not at:
        return Key("file", path=text, whole=True)
    try:
        return Key("file", path=path, offset=parse_size(offset))
    except UsageError:  # an @ that belongs to the name
        return Key("file", path=text, whole=True)


def resolve(picture: Snapshot, key: Key) -> Resolved:
    """Find in a picture what a KEY names.

    Raises:
        UsageError: the KEY names a process, not a page.
    """
    if key.kind == "pfn":
        return Resolved(pfn=key.pfn)
    if key.kind == "swap":
        return Resolved(swap=key.swap)
    if key.kind == "address":
        return _at_address(picture, key)
    if key.kind == "file":
        return _in_file(picture, key)
    raise UsageError(f"{key.pid} is a process, with many pages: name one as {key.pid}:0xADDRESS")


def _at_address(picture: Snapshot, key: Key) -> Resolved:
    process = row_of(picture, key.pid)
    if process < 0:
        return Resolved(reason=f"process {key.pid} is not in the picture")
    vmas, ptes = picture.vmas, picture.ptes
    low, high = np.searchsorted(vmas.process, [process, process + 1])
    vma = int(low + np.searchsorted(vmas.start[low:high], key.address, side="right")) - 1
    if vma < low or key.address >= vmas.end[vma]:
        return Resolved(reason=f"process {key.pid} has nothing at {key.address:#x}")
    first, last = np.searchsorted(ptes.vma, [vma, vma + 1])
    row = int(first + np.searchsorted(ptes.address[first:last], key.address, side="right")) - 1
    page = (key.address - int(ptes.address[row])) >> PAGE_SHIFT if row >= first else 0
    if row < first or page >= ptes.count[row]:
        return Resolved(reason=f"{key.address:#x} of process {key.pid} is mapped, but no page is there yet")
    kind = int(ptes.flags[row])
    if kind & f.PTE_PRESENT:
        return Resolved(pfn=int(ptes.pfn[row]) + page)
    if kind & f.PTE_SWAP:
        entry = int(ptes.pfn[row]) + page * f.SWAP_STEP
        return Resolved(swap=(entry & (f.SWAP_STEP - 1), entry >> f.SWAP_TYPE_BITS))
    what = "a guard marker" if kind & f.PTE_GUARD else "an entry that is not present"
    return Resolved(reason=f"{key.address:#x} of process {key.pid} holds {what}")


def _in_file(picture: Snapshot, key: Key) -> Resolved:
    named = [row for row, path in enumerate(picture.files.path) if path in (key.path, key.path + _DELETED)]
    if not named:
        return Resolved(reason=f"no recorded process maps a file {key.path}")
    frames = picture.frames
    page = key.offset >> PAGE_SHIFT
    behind = page - frames.index
    found = np.flatnonzero(np.isin(frames.file, named) & (behind >= 0) & (behind < frames.count))
    pfns = frames.pfn[found] + behind[found]
    if not len(pfns):
        return Resolved(reason=f"no recorded process maps page {page:,} of {key.path}")
    # Of several files with one path (another mount namespace, a replaced file), the one mapped most.
    best = int(np.argmax(picture.reverse.found[picture.reverse.dense(pfns)]))
    return Resolved(pfn=int(pfns[best]))
