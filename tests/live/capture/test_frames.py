"""What a snapshot says of frames, worked out from columns, without a kernel."""

from __future__ import annotations

import numpy as np

from rmap.live.capture import frames
from rmap.live.capture.frames import Described, Extents, VmaColumns, mark_special
from rmap.live.sources.kpage_columns import PageState
from rmap.snapshot import flags as f
from rmap.snapshot import kinds as k


def test_entries_of_the_zero_page_are_marked_even_inside_an_extent() -> None:
    n = 6
    zeros = np.zeros(n, np.int64)
    state = PageState(
        np.arange(100, 100 + n), zeros, zeros, zeros.astype(np.int8), zeros.astype(np.int32), zeros, zeros > 0
    )
    kind = np.array([k.ANON, k.ANON, k.ZERO, k.ANON, k.ZERO, k.ZERO], np.int8)
    described = Described(state, kind, zeros - 1, zeros - 1, zeros, zeros - 1)
    rows = [(0, 0x1000, 100, 4, f.PTE_PRESENT), (1, 0x9000, 104, 2, f.PTE_PRESENT), (1, 0xF000, -1, 3, f.PTE_GUARD)]
    marked = mark_special(Extents(*(np.array(column, np.int64) for column in zip(*rows))), described)
    special = (marked.flags & f.PTE_SPECIAL) != 0
    assert sorted(zip(marked.pfn[special].tolist(), marked.count[special].tolist())) == [(102, 1), (104, 2)]
    assert sorted(marked.address[~special].tolist()) == [0x1000, 0x2000, 0x4000, 0xF000]


def test_the_unmapped_rest_of_a_file_folio_follows_from_its_mapped_pages() -> None:
    # A folio of four pages of file 3, of which one VMA maps the third (page 12 of the file), then an anonymous page.
    n = 5
    zeros = np.zeros(n, np.int64)
    order = np.array([2, 2, 2, 2, 0], np.int8)
    offset = np.array([0, 1, 2, 3, 0], np.int32)
    state = PageState(np.arange(100, 100 + n), zeros, zeros, order, offset, zeros, zeros > 0)
    kind = np.array([k.FILE] * 4 + [k.ANON], np.int8)
    flags = np.array([f.PTE_PRESENT | f.PTE_FILE, f.PTE_PRESENT])
    present = Extents(np.array([0, 0]), np.array([0x3000, 0x4000]), np.array([102, 104]), np.array([1, 1]), flags)
    vmas = VmaColumns(np.array([1]), np.array([3]), np.array([0x1000]), np.array([10]))
    file, index = frames._files(present, vmas, state, kind)
    assert file.tolist() == [3, 3, 3, 3, -1]
    assert index.tolist() == [10, 11, 12, 13, -1]
