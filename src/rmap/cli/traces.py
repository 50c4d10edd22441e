"""Which trace a word on the command line means: a shipped one by name, else a path."""

from __future__ import annotations

from pathlib import Path

from rmap.errors import UsageError


def trace_path(word: str) -> Path:
    """The file or folder of a trace.

    Raises:
        UsageError: neither a shipped trace nor a file.
    """
    from rmap.lab.replay.shipped import shipped_traces

    path = Path(word)
    if path.exists():
        return path
    shipped = shipped_traces()
    if word in shipped:
        return shipped[word]
    if path.with_name(f"{path.name}.part").is_dir():
        raise UsageError(f"{word} was not finished; what there is of it is in {word}.part")
    names = ", ".join(shipped) or "none"
    raise UsageError(f"{word!r} is neither a file nor a trace that ships with rmap ({names})")
