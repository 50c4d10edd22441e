"""The published figures of reverse maps, J1 to J28, and ours beside those that are counts, bytes or ratios of designs.

What was published is in :mod:`rmap.lab.history.published`, in our own words; which workloads stand for it here, in
:mod:`rmap.lab.history.ours`. A time on a machine of 2003 is no figure of ours: but where two designs were timed side by
side, there are two counts of ours to hold against them, and the question is whether they say the same.
"""

from __future__ import annotations

from rmap.lab.history.compare import HistoryAnswer, Verdict, history
from rmap.lab.history.published import PUBLISHED, Published, Quoted

__all__ = ["PUBLISHED", "HistoryAnswer", "Published", "Quoted", "Verdict", "history"]
