"""Is a reverse map right? The test that every design passes, shipped for whoever writes another.

::

    from rmap.designs.conformance import run_conformance_test
    run_conformance_test(MyDesign)

Random but legal system calls drive two machines under the design, one with the scalar twins and one without. After
every call, in both: the walk of every page equals the page tables, by batch and one by one, with the same visits
counted; mapcounts and every invariant hold; the design's own structures are sound. Between the two: the same
answers, the same state up to the names of frames, the same costs.

A walk that finds every entry may still look in far too many places, or keep what it should have dropped. So the
design's ``validate`` and the counts matter as much as the oracle; a design whose ``validate`` checks nothing passes
more easily than it should.
"""

from __future__ import annotations

from rmap.designs.conformance.run import Conformance, run_conformance_test

__all__ = ["Conformance", "run_conformance_test"]
