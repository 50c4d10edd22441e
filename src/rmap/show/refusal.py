"""A refusal: what is missing, why, and what works now."""

from __future__ import annotations

from rmap.show.text import wrap

LABEL_WIDTH = 10


def refusal(message: str, *, needed: str = "", run: str = "", works: str = "") -> list[str]:
    """The lines of an error, for stderr.

    Args:
        message: what is refused and why; its own line breaks are kept.
        needed: what is missing.
        run: the command that would work; never broken, so that it can be copied.
        works: what works now.
    """
    first, *others = message.splitlines() or [""]
    lines = wrap(first, "rmap: ")
    for line in others:
        lines += wrap(line, " " * 6)
    if needed:
        lines += wrap(needed, f"  {'needed':<{LABEL_WIDTH}}")
    if run:
        lines.append(f"  {'run':<{LABEL_WIDTH}}{run}")
    if works:
        lines += wrap(works, f"  {'works':<{LABEL_WIDTH}}")
    return lines
