"""The abilities of this machine and this user: what rmap can see, and what is missing for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rmap.show.text import labelled, plural, wrap

STATE_WIDTH = 5

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
"""What each ability is, and what it is for, by its name in ``rmap.live.abilities``; and recording."""


def doctor(abilities: Mapping[str, str | None], *, release: str, refused: Sequence[int] = ()) -> list[str]:
    """The lines of ``rmap doctor``.

    Args:
        abilities: by name: None if it is there, else what is missing, in words.
        release: of the running kernel.
        refused: pids whose memory maps this user may not read.
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
    return [*lines, "", *wrap("The model needs none of this: rmap demo, compare and explain work everywhere.")]
