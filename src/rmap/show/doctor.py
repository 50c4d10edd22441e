"""The abilities of this machine and this user: what rmap can see, and what is missing for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rmap.show.text import labelled, plural, whole_size, wrap
from rmap.units import format_bytes

if TYPE_CHECKING:
    from rmap.live.doctor.machine import Facts

STATE_WIDTH = 5
_FACT = 11
_INSIDE = {
    "pid": "a PID namespace: processes outside are not seen, and count as hidden",
    "user": "a user namespace: even its root is shown no page frames",
    "mnt": "a mount namespace of its own: paths are those seen here",
}

WORDS = {
    "frames": ("page frame numbers (/proc/PID/pagemap)", "everything on the running machine"),
    "page_state": ("mapcounts, flags and cgroups of frames (/proc/kpage*)", "everything on the running machine"),
    "other_users": ("processes of other users", "complete answers: else their mappings count as hidden"),
    "scan": ("skipping holes of sparse mappings (PAGEMAP_SCAN)", "speed"),
    "same_mm": ("which processes share one memory (kcmp)", "counting vfork children and CLONE_VM once"),
    "kernel_memory": (
        "the kernel's own anon_vmas, chains, struct pages and trees (BPF)",
        "rmap check of I1 to I17, who --kernel, explain PID:ADDR; else a picture's anon_vmas are inferred",
    ),
    "recording": ("events of a program as they happen (BPF)", "rmap record by BPF; perf is the other way"),
}
"""What each ability is, and what it is for, by its name in ``rmap.live.doctor.abilities``; and recording."""


def doctor(
    abilities: Mapping[str, str | None], *, release: str, refused: Sequence[int] = (), machine: Facts | None = None
) -> list[str]:
    """The lines of ``rmap doctor``.

    Args:
        abilities: by name: None if it is there, else what is missing, in words.
        release: of the running kernel.
        refused: pids whose memory maps this user may not read.
        machine: what else is known of it.
    """
    missing = sum(text is not None for text in abilities.values())
    answer = f"{plural(missing, 'ability', 'abilities')} missing" if missing else "all abilities are there"
    lines = [*wrap(f"Linux {release}: {answer}"), ""]
    for name, text in abilities.items():
        what, serves = WORDS[name]
        lines += labelled("yes" if text is None else "NO", what, STATE_WIDTH)
        if text is not None:
            lines += labelled("", f"missing: {text}", STATE_WIDTH)
            lines += labelled("", f"needed for: {serves}", STATE_WIDTH)
    if refused:
        named = ", ".join(str(pid) for pid in refused[:8]) + (f" and {len(refused) - 8:,} more" if refused[8:] else "")
        text = f"{plural(len(refused), 'process', 'processes')} (pid {named}): memory maps refused to this user"
        lines += labelled("NO", text, STATE_WIDTH)
        lines += labelled("", "their mappings count as hidden; even root is refused by a process that is not dumpable, "
                          "or that a security module protects", STATE_WIDTH)  # fmt: skip
    if machine is not None:
        lines += ["", *_machine(machine)]
    return [*lines, "", *wrap("The model needs none of this: rmap demo, compare and explain work everywhere.")]


def _machine(machine: Facts) -> list[str]:
    levels = f", {machine.levels} levels of page tables" if machine.levels else ""
    pages = f"pages of {whole_size(machine.page_size)}{levels}"
    lines = labelled("memory", f"{format_bytes(machine.memory)}, {pages}", _FACT)
    lines += labelled("rights", ", ".join(machine.capabilities) or "none of those that rmap can use", _FACT)
    for kind, first in machine.namespaces.items():
        if first is False:
            lines += labelled("inside", _INSIDE[kind], _FACT)
    if machine.hidepid not in ("off", "0"):
        lines += labelled("hidepid", f"{machine.hidepid}: processes of other users are not listed in /proc", _FACT)
    where = f"v{machine.cgroup[0]} at {machine.cgroup[1]}" if machine.cgroup else "not mounted"
    lines += labelled("cgroups", f"memory hierarchy {where}", _FACT)
    swap = plural(machine.swap, "swap area") if machine.swap else "no swap: anonymous memory has nowhere to go (evict)"
    lines += labelled("settings", f"{swap}; KSM {machine.ksm}; huge pages {machine.thp}", _FACT)
    if machine.average_mapcounts:
        lines += labelled("mapcounts", "of large folios are averages: who says approximate, PSS is rounded", _FACT)
    source = machine.config or "traces of them: there is no config to read"
    unknown = [name for name, there in machine.options.items() if there is None]
    lines += labelled("kernel", f"options from {source}", _FACT)
    for name, cost in machine.costs.items():
        lines += labelled("", f"without {name}: {cost}", _FACT)
    if unknown:
        lines += labelled("", f"not known: {', '.join(unknown)}", _FACT)
    return lines
