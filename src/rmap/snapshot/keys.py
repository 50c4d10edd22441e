"""KEYs: how a reader names a page.

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

from rmap.errors import UsageError
from rmap.units import PAGE_SHIFT, parse_size

_NUMBER = re.compile(r"0x[0-9a-f]+|[0-9]+", re.IGNORECASE)
_ADDRESS = re.compile(r"([0-9]+):(0x[0-9a-f]+)", re.IGNORECASE)
_LIKE_AN_ADDRESS = re.compile(r"(\d+|self):")  # and not one: a slip, rather than a file of such a name


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
