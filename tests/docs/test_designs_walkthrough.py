"""docs/designs.md: the design that is built there runs, passes the conformance test, and every line of it is needed."""

from __future__ import annotations

import doctest
import re
from typing import Any

import pytest

from rmap import Kernel
from rmap.designs.conformance import run_conformance_test
from rmap.errors import InvariantError
from rmap.mm.interface import ReverseMap
from tests.support import ROOT

PAGE = ROOT / "docs" / "designs.md"
BLOCK = re.compile(r"(?<=^```python\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
LINES_MAX = 80


@pytest.fixture(scope="module")
def source() -> str:
    (block,) = (block for block in BLOCK.findall(PAGE.read_text()) if "(ReverseMap):" in block and ">>>" not in block)
    return str(block)


@pytest.fixture(scope="module")
def names(source: str) -> dict[str, Any]:
    """What the text's module defines, as if it had been imported."""
    module: dict[str, Any] = {"__name__": "flat_list"}
    exec(compile(source, str(PAGE), "exec"), module)
    return module


def test_it_is_as_short_as_the_text_says(source: str) -> None:
    assert sum(bool(line.strip()) for line in source.splitlines()) <= LINES_MAX


@pytest.mark.parametrize("profile", ["6.18", "7.0"])
def test_it_conforms(names: dict[str, Any], profile: str) -> None:
    covered = run_conformance_test(names["FlatList"], profile=profile, seeds=range(4), steps=40)
    assert covered.design == "flat_list"
    assert covered.pages > 1000


@pytest.mark.parametrize("hook", ["anon_vma_prepare", "vma_fork", "vma_clone", "vma_unlink", "set_anon"])
def test_no_hook_can_be_left_out(names: dict[str, Any], hook: str) -> None:
    lacking = type("Lacking", (names["FlatList"],), {hook: getattr(ReverseMap, hook)})
    with pytest.raises(InvariantError):
        run_conformance_test(lacking, seeds=range(4), steps=40)


def test_validate_finds_a_vma_that_stays_listed(names: dict[str, Any]) -> None:
    kernel = Kernel(design=names["FlatList"], nr_pages=64)
    process = kernel.spawn()
    page = process.mmap(4096)
    process.write(page, 4096)
    design: Any = kernel.design
    (vma,) = design.anonymous
    process.munmap(page, 4096)
    kernel.check()
    design.anonymous.insert(vma)
    with pytest.raises(InvariantError, match="1 VMAs are listed, 0 hold"):
        kernel.check()


def test_the_kernel_takes_it(names: dict[str, Any]) -> None:
    kernel = Kernel(design=names["FlatList"], nr_pages=256)
    parent = kernel.spawn()
    heap = parent.mmap(8192)
    parent.write(heap, 8192)
    library = parent.mmap(8192, "r", file=kernel.open("libc.so", 8192))
    parent.read(library, 8192)
    child = parent.fork()
    child.munmap(heap, 4096)
    child.read(library, 8192)
    for address, mappers in ((heap, 1), (heap + 4096, 2), (library, 2), (library + 4096, 2)):
        pfn = kernel.pfn(parent, address)
        assert pfn is not None
        assert kernel.walk(pfn) == kernel.oracle(pfn)
        assert len(kernel.walk(pfn)) == mappers
    assert kernel.check()["vmas"] == 4
    assert kernel.metadata_bytes() == {"page.mapcount": 4 * 4, "vma.node": 4 * 16}


def test_the_examples_of_the_page_say_what_it_says(names: dict[str, Any]) -> None:
    failed, tried = doctest.testfile(str(PAGE), module_relative=False, globs=dict(names))
    assert tried >= 13
    assert failed == 0
