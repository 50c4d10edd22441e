"""Results as JSON and back, exactly: for the cache, and for whoever keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rmap.lab.results import Correctness, DesignResult, EvictionFigures, Figure, Structure, Subject, WalkFigures


def answer_to_plain(subject: Subject, result: DesignResult) -> dict[str, Any]:
    """One design's answer about one subject."""
    return {"subject": asdict(subject), "result": asdict(result)}


def answer_from_plain(data: Mapping[str, Any]) -> tuple[Subject, DesignResult]:
    """The inverse of :func:`answer_to_plain`.

    Raises:
        KeyError, TypeError: the data are something else.
    """
    subject, result = dict(data["subject"]), dict(data["result"])
    subject["inferred"] = tuple(subject["inferred"])
    result["correctness"] = Correctness(**result["correctness"])
    result["memory"] = tuple(Structure(**row) for row in result["memory"])
    result["figures"] = tuple(Figure(**row) for row in result["figures"])
    result["walks"] = tuple(WalkFigures(**row) for row in result["walks"])
    result["notes"] = tuple(result["notes"])
    result["eviction"] = None if result["eviction"] is None else EvictionFigures(**result["eviction"])
    return Subject(**subject), DesignResult(**result)
