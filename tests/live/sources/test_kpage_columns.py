"""What is read of /proc/kpage*: as little as tells everything, on a made-up machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmap.columns import I64
from rmap.live.sources import kpage_columns as page_state
from rmap.uapi.kpageflags import KPF_ANON, KPF_COMPOUND_HEAD, KPF_COMPOUND_TAIL

FRAMES = 1 << 12


class Machine:
    """Frames in folios; ``KpageFile`` reads it."""

    def __init__(self, orders: list[int]) -> None:
        self.order = np.zeros(FRAMES, np.int64)
        self.head = np.arange(FRAMES)
        self.flags = np.full(FRAMES, KPF_ANON, np.int64)
        self.mapcount = np.arange(FRAMES) % 7
        self.read = 0
        at = 0
        for order in orders:
            at = -(-at >> order) << order  # aligned
            if at + (1 << order) > FRAMES:
                break
            self.make(at, order)
            at += 1 << order

    def make(self, at: int, order: int) -> None:
        """A folio."""
        if order:
            self.order[at : at + (1 << order)] = order
            self.head[at : at + (1 << order)] = at
            self.flags[at] |= KPF_COMPOUND_HEAD
            self.flags[at + 1 : at + (1 << order)] |= KPF_COMPOUND_TAIL

    def file(self, name: str) -> Any:
        """In place of ``KpageFile``."""
        column = {"kpagecount": self.mapcount, "kpageflags": self.flags, "kpagecgroup": self.head * 3}[name]
        machine = self

        class File:
            def read(self, first: I64, count: I64, beyond: int) -> I64:
                wanted = np.concatenate([np.arange(a, a + n) for a, n in zip(first, count)] or [np.empty(0, np.int64)])
                machine.read += len(wanted)
                inside = np.minimum(wanted.astype(np.int64), FRAMES - 1)
                return np.where(wanted < FRAMES, column[inside], beyond)

            def close(self) -> None:
                pass

        return File()


def runs(frames: list[int]) -> tuple[I64, I64]:
    """One run a frame."""
    return np.array(sorted(frames), np.int64), np.ones(len(frames), np.int64)


@given(
    st.lists(st.sampled_from([0, 0, 0, 1, 2, 4, 9, 10]), min_size=1, max_size=300),
    st.sets(st.integers(0, FRAMES - 1), max_size=60),
)
@settings(deadline=None)
def test_everything_asked_for_is_told_with_the_rest_of_its_folio(orders: list[int], asked: set[int]) -> None:
    machine = Machine(orders)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_state, "KpageFile", machine.file)
        found = page_state.read_page_state(*runs(list(asked)))
    heads = {int(machine.head[frame]) for frame in asked}
    whole = sorted(frame for head in heads for frame in range(head, head + (1 << int(machine.order[head]))))
    assert found.pfn.tolist() == whole
    assert found.order.tolist() == machine.order[whole].tolist()
    assert (found.pfn - found.head_offset).tolist() == machine.head[whole].tolist()
    assert found.mapcount.tolist() == machine.mapcount[whole].tolist()
    assert found.cgroup.tolist() == (machine.head[whole] * 3).tolist()
    assert not found.raced.any()


def test_single_pages_far_apart_cost_little() -> None:
    machine = Machine([])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_state, "KpageFile", machine.file)
        page_state.read_page_state(*runs(list(range(3, FRAMES, 64))))
    assert machine.read <= 5 * 8 * (FRAMES // 64), "five looks at a block each"


@pytest.mark.parametrize("order", [2, 3, 4, 9])
def test_a_folio_that_was_single_pages_at_the_first_look_is_raced(order: int) -> None:
    machine = Machine([])

    def files(name: str) -> Any:
        opened = machine.file(name)
        if name == "kpagecount":  # read between the two looks at the flags
            count = opened.read

            def read(*args: Any) -> I64:
                if not machine.order.any():
                    machine.make(512, order)
                return np.asarray(count(*args))

            opened.read = read
        return opened

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_state, "KpageFile", files)
        found = page_state.read_page_state(*runs([40, 513, 1100]))
    raced = dict(zip(found.pfn.tolist(), found.raced.tolist()))
    assert raced[513] and not raced[40] and not raced[1100]
