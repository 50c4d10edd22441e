"""Designs that are wrong on purpose, and jobs for the worker processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable

from rmap.designs.anon_vma_chain import AnonVmaChainDesign
from rmap.errors import LimitError
from rmap.lab.compare.workers import Answer, Say
from rmap.lab.results import Correctness, DesignResult, Subject
from rmap.mm.interface import Candidate1, Candidates, Query

SUBJECT = Subject("workload", "job", "a job", 1, 1, 1, 1)


class Blind(AnonVmaChainDesign):
    """Leaves out the first place it should look at."""

    def candidates(self, query: Query) -> Candidates:
        everything = super().candidates(query)
        next(everything, None)
        yield from everything


class BlindToOne(AnonVmaChainDesign):
    """The same, but only when asked for a single page."""

    def candidates1(self, pfn: int) -> Iterable[Candidate1]:
        return list(super().candidates1(pfn))[1:]


class Repeating(AnonVmaChainDesign):
    """Names every place twice."""

    def candidates(self, query: Query) -> Candidates:
        for chunk in super().candidates(query):
            yield chunk
            yield chunk


def result_of(design: str) -> DesignResult:
    """A result without figures."""
    return DesignResult(design, Correctness(1, 1, 0, 1, 0), (), 0.0, (), 1)


def slow_first(design: str, say: Say) -> Answer:
    """The first design takes longer than the second."""
    say(f"pid {os.getpid()}")
    time.sleep(0.5 if design == "pte_chain" else 0)  # to take longer is its job
    return SUBJECT, result_of(design)


def refused(design: str, say: Say) -> Answer:
    """One design cannot."""
    if design == "pte_chain":
        raise LimitError("too much")
    time.sleep(60)  # its job: the test ends it
    return SUBJECT, result_of(design)


def killed(design: str, say: Say) -> Answer:
    """One design's process is killed, as by the kernel when memory is short."""
    if design == "pte_chain":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # its job: the test ends it
    return SUBJECT, result_of(design)


def crashing(design: str, say: Say) -> Answer:
    """A bug."""
    raise ZeroDivisionError


def endless(design: str, say: Say) -> Answer:
    """Says something, and goes on."""
    say("begun")
    time.sleep(60)  # its job: the test ends it
    return SUBJECT, result_of(design)
