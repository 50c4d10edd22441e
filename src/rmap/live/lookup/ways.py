"""The ways to look for the entries of one page: where the kernel's own reverse map would look, then everywhere.

A page of a file is looked for in every area of that file, at the place its offset gives; an anonymous page at the same
address of every process, for a fork keeps addresses. What these do not find is searched for in everything.

:meth:`rmap.live.lookup.place.Place.ways` says which of them lead to a page, in which order.
"""

from __future__ import annotations

from rmap.live.lookup.search import Enough, Hit, Search, looking_at
from rmap.live.sources.areas import FileIdentity, address_in, areas_of
from rmap.live.sources.pagemap import PagemapFile
from rmap.units import PAGE_MASK


class Way:
    """A way to look. Plain classes: a look-up of one page should not wait for more to be made at its start.

    Attributes:
        slow: a user who waits is told about it.
    """

    slow = False

    def look(self, search: Search, pids: list[int], enough: Enough) -> None:
        """Look for entries.

        Args:
            search: what for; hits are added to it.
            pids: ascending, so that of those who share an mm the lowest comes first.
        """
        raise NotImplementedError

    def in_words(self, hits: int) -> str:
        """Which way it was, and how many entries more were found on it."""
        raise NotImplementedError


class InFile(Way):
    """In every area of a file.

    Args:
        page: its number in the file.
    """

    def __init__(self, file: FileIdentity, page: int) -> None:
        self.file = file
        self.page = page

    def look(self, search: Search, pids: list[int], enough: Enough) -> None:
        """See :class:`Way`."""
        for pid in pids:
            with looking_at(pid, search.unread):
                places = [address_in(area, self.page) for area in areas_of(pid, self.file)]
                if _look_at(search, pid, [address for address in places if address is not None], enough):
                    return

    def in_words(self, hits: int) -> str:
        """See :class:`Way`."""
        return "dev:inode and offset in every VMA of the file"


class AtAddress(Way):
    """At one address (bytes) of every process."""

    def __init__(self, address: int) -> None:
        self.address = address

    def look(self, search: Search, pids: list[int], enough: Enough) -> None:
        """See :class:`Way`."""
        for pid in pids:
            with looking_at(pid, search.unread):
                if _look_at(search, pid, [self.address & PAGE_MASK], enough):
                    return

    def in_words(self, hits: int) -> str:
        """See :class:`Way`."""
        return f"same address in the fork family ({hits})"


class Everywhere(Way):
    """At every entry of every process that has not been scanned yet.

    Args:
        rest: it comes after another way.
    """

    slow = True

    def __init__(self, rest: bool = False) -> None:
        self.rest = rest

    def look(self, search: Search, pids: list[int], enough: Enough) -> None:
        """See :class:`Way`; who was begun with is scanned to the end."""
        from rmap.live.lookup.scan import everywhere  # and with it NumPy

        everywhere(search, pids, enough)

    def in_words(self, hits: int) -> str:
        """See :class:`Way`."""
        return f"a scan of the rest ({hits})" if self.rest else "a scan of every page table"


def _look_at(search: Search, pid: int, addresses: list[int], enough: Enough) -> bool:
    # Whether it is enough. What has no place for the page is not opened.
    if not addresses:
        return False
    with PagemapFile(pid) as entries:
        for address in addresses:
            if search.matches(entries.entry(address)):
                search.hits.add(Hit(pid, address))
                if enough():
                    return True
    return False
