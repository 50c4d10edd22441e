"""A finding as a Python script that shows it: the calls, told to a model and to real processes in step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from rmap.lab.conform.pair import NR_PAGES, Pair
from rmap.lab.conform.scenario import FILE_PAGES, FILES, SUBJECTS, ScenarioStep, pages, spell_number
from rmap.lab.conform.swap import swap_to_zram
from rmap.live.bpf import open_memory, why_not
from rmap.live.undo import machine_state


@contextmanager
def in_step(
    *, design: str = "anon_vma_chain", profile: str = "6.18", nr_pages: int = NR_PAGES, swap: bool = False
) -> Iterator[Pair]:
    """A model and real processes that do the same; what a script of :func:`script_of` begins with.

    Args:
        design, profile, nr_pages: of the model.
        swap: with swap to zram meanwhile.

    Raises:
        NotPermitted: no puppets here, or no zram.
    """
    with ExitStack() as stack:
        if swap:
            stack.enter_context(machine_state())
            stack.enter_context(swap_to_zram())
        memory = stack.enter_context(open_memory()) if why_not() is None else None
        yield stack.enter_context(Pair(design, profile=profile, nr_pages=nr_pages, memory=memory))


def script_of(steps: Sequence[ScenarioStep], refused: Sequence[bool], why: str, about: str, **machine: Any) -> str:
    """The text of a script that ends with ``Diverged`` (status 1) where the machines do not agree.

    Args:
        steps: the calls; the last of them shows it.
        refused: which of them are refused, by both alike.
        why: what differs, in words.
        about: where it comes from: a sentence.
        machine: the arguments of :func:`in_step`.
    """
    options = ", ".join(f"{key}={value!r}" for key, value in machine.items())
    lines = [
        "#!/usr/bin/env python3",
        f'"""{about}',
        "",
        *why.splitlines(),
        "",
        "Run it as root: it ends with Diverged, and with status 1, as long as they differ.",
        '"""',
        "",
        "from contextlib import suppress",
        "",
        "from rmap import SyscallError",
        "from rmap.lab.conform import at, in_step, pages",
        "",
        f"with in_step({options}) as machine:",
    ]
    for name in _files_of(steps):
        path, how = FILES[name]
        size = 0 if path == "/dev/zero" else pages(FILE_PAGES)
        words = [repr(path), spell_number(size), *(f"{key}={value!r}" for key, value in how.items())]
        lines.append(f"    {name} = machine.open({', '.join(words)})")
    for step, no in zip(steps, [*refused, *[False] * len(steps)]):
        lines += ["    with suppress(SyscallError):", f"        {step}"] if no else [f"    {step}"]
    return "\n".join([*lines, 'print("no difference")', ""])


def _files_of(steps: Sequence[ScenarioStep]) -> list[str]:
    # In the order of FILES: that is how a scenario opens them.
    used = {step.how.get("file", SUBJECTS.get(step.process)) for step in steps}
    return [name for name in FILES if name in used]
