"""Comparisons: figures agree with what was done, a wrong design is told, one process per design is left clean."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from rmap import DESIGNS, Kernel
from rmap.designs import DEFAULT_DESIGNS
from rmap.errors import InvariantError, LimitError, UsageError
from rmap.lab.compare.compare import compare_workload
from rmap.lab.compare.figures import LABELS
from rmap.lab.compare.workers import chosen, once_per_design
from rmap.lab.correctness import correctness
from rmap.lab.results import Comparison, DesignResult, Subject
from tests.support import broken
from tests.support.small_workloads import SMALL
from tests.support.waiting import until

CHILDREN, PAGES, REWRITTEN = 4, 700, 70
BOTH = ["pte_chain", "anon_vma_chain"]


def figure(result: DesignResult, operation: str, label: str) -> float:
    (value,) = (f.value for f in result.figures if (f.operation, f.label) == (operation, label))
    return value


@pytest.fixture(scope="module")
def told() -> list[Any]:
    return []


@pytest.fixture(scope="module")
def server(told: list[Any]) -> Comparison:
    return compare_workload("fork-server", SMALL["fork-server"], progress=told.append)


def test_the_subject_is_what_was_made(server: Comparison) -> None:
    subject = server.subject
    assert (subject.processes, subject.vmas) == (CHILDREN + 1, CHILDREN + 1)
    assert subject.pages == PAGES + CHILDREN * REWRITTEN
    assert subject.ptes == (CHILDREN + 1) * PAGES
    assert subject.parameters == SMALL["fork-server"]
    assert server.equal and [r.design for r in server.designs] == BOTH


def test_figures_are_what_must_have_been_paid(server: Comparison) -> None:
    chains, links = server.designs
    assert figure(chains, "fork", "entries written per child") == PAGES
    assert figure(links, "fork", "entries written per child") == 0
    assert figure(chains, "fork", "objects made per child") == PAGES / CHILDREN  # one block per page serves all
    assert figure(links, "fork", "objects made per child") == 3  # two links and an anon_vma
    assert figure(chains, "COW", "blocks searched per page") == 1
    really = PAGES * (1 + CHILDREN) - CHILDREN * REWRITTEN
    for result in server.designs:
        assert figure(result, "walk", "a page of the parent: looked at") >= really / PAGES
        assert figure(result, "walk", "a page of a child: looked at") == 1
    assert figure(chains, "walk", "a page of the parent: looked at") == really / PAGES


def test_memory_is_grouped_and_complete(server: Comparison) -> None:
    for result in server.designs:
        assert sum(s.bytes for s in result.memory) == sum(result.structures.values())
        assert result.bytes_per_page == sum(result.structures.values()) / server.subject.pages
        assert {s.label for s in result.memory} == {LABELS[name] for name in result.structures}
    chains = {s.label: s for s in server.designs[0].memory}
    assert chains["in each struct page"].bytes == 8 * server.subject.pages
    assert chains["chain blocks"].count == PAGES


def test_checking_and_sampling_are_not_in_the_costs_of_the_workload(server: Comparison) -> None:
    """The walks that are held against the oracle leave no trace, and those of the samples have figures of their own."""
    for result in server.designs:
        assert "walk" not in result.costs
        assert [walk.pages for walk in result.walks] == [PAGES, CHILDREN * REWRITTEN]
        assert result.costs["fork"]["calls"] == CHILDREN


def test_progress_comes_in_order(server: Comparison, told: list[Any]) -> None:
    facts = [event for event in told if not isinstance(event, str)]
    assert [type(event) for event in facts] == [Subject, DesignResult, DesignResult]
    assert [event.design for event in facts[1:]] == BOTH
    words = [event for event in told if isinstance(event, str)]
    assert any(word.startswith("pte_chain: fork 4 of 4") for word in words)


def test_a_seed_reproduces_a_comparison(server: Comparison) -> None:
    again = compare_workload("fork-server", SMALL["fork-server"], designs=["pte_chain"])
    assert asdict(again.designs[0]) == asdict(server.designs[0])
    other = compare_workload("fork-server", SMALL["fork-server"], designs=["pte_chain"], seed=2)
    assert other.subject.seed == 2 and other.designs[0].correctness.equal


@pytest.mark.parametrize("name", SMALL)
def test_every_workload_compares(name: str) -> None:
    result = compare_workload(name, SMALL[name], designs=["anon_vma_chain"], profile="7.0")
    assert result.equal and result.profile == "7.0"
    assert {f.operation for f in result.designs[0].figures} >= {"walk"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "fork-sever"}, "unknown workload 'fork-sever'"),
        ({"designs": ["anonmmm"]}, "unknown design 'anonmmm'"),
        ({"designs": []}, "no design"),
        ({"designs": ["pte_chain", "pte_chain"]}, "named twice"),
        ({"profile": "4.4"}, "unknown profile '4.4'"),
        ({"seed": -1}, "a seed"),
    ],
)
def test_nonsense_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        compare_workload(**{"name": "fork-server", **arguments})


def family(design: Any) -> Kernel:
    kernel = Kernel(design, nr_pages=1 << 10)
    parent = kernel.spawn()
    heap = parent.mmap(20 * 4096)
    parent.write(heap, 20 * 4096)
    for _ in range(3):
        parent.fork().write(heap, 4096)
    return kernel


def test_a_right_design_is_right() -> None:
    for design in DESIGNS:
        kernel = family(design)
        before = kernel.costs.as_dict()
        answer = correctness(kernel)
        assert answer.equal
        assert (answer.ptes_found, answer.ptes_total, answer.pages) == (80, 80, 23)
        assert kernel.costs.as_dict() == before


def test_a_design_that_misses_an_entry_is_wrong() -> None:
    answer = correctness(family(broken.Blind))
    assert not answer.equal
    assert answer.ptes_found == 80 - 20 and answer.ptes_invented == 0
    assert answer.pages_wrong == 20


def test_a_design_that_names_an_entry_twice_is_wrong() -> None:
    answer = correctness(family(broken.Repeating))
    assert not answer.equal
    assert (answer.ptes_found, answer.ptes_invented, answer.pages_wrong) == (80, 80, 23)


def test_each_design_has_its_own_process_and_results_keep_their_order() -> None:
    told: list[Any] = []
    answers = once_per_design(broken.slow_first, BOTH, told.append)
    assert [result.design for _, result in answers] == BOTH
    assert [event for event in told if not isinstance(event, str)] == [broken.SUBJECT, *(r for _, r in answers)]
    pids = {event.split()[-1] for event in told if isinstance(event, str)}
    assert len(pids) == 2 and str(os.getpid()) not in pids


@pytest.mark.parametrize(
    ("job", "error", "says"),
    [
        (broken.refused, LimitError, "too much"),
        (broken.killed, LimitError, "pte_chain was killed by SIGKILL"),
        (broken.crashing, InvariantError, "failed"),
    ],
)
def test_a_failure_ends_the_other_process_too(job: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        once_per_design(job, BOTH, lambda event: None)
    assert multiprocessing.active_children() == []


def test_an_interrupt_leaves_no_process_behind() -> None:
    def interrupt(event: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once_per_design(broken.endless, BOTH, interrupt)
    assert multiprocessing.active_children() == []


def test_an_interrupt_from_the_terminal_is_one_line() -> None:
    """It reaches every process of the group, as Ctrl-C does: no traceback, no process left, status 130."""
    command = [sys.executable, "-m", "rmap", "compare", "fork-server"]
    with subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True, start_new_session=True) as running:
        until(lambda: len(group_of(running.pid)) >= 3, 60)
        os.killpg(running.pid, signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err) == (130, "", "rmap: interrupted\n")
    until(lambda: not group_of(running.pid), 10)  # a process closes its files, and so the pipes, before it is gone


def group_of(leader: int) -> list[int]:
    """The processes of a group that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = path.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(group) == leader and state != "Z":
            found.append(int(path.parent.name))
    return found


def test_the_two_that_decided_unless_some_are_named() -> None:
    assert chosen(None) == list(DEFAULT_DESIGNS)
    assert chosen(["anon_vma_chain"]) == ["anon_vma_chain"]
