"""Workloads that somebody published: their parameters are the published ones, and one factor scales them all.

``--scale 100%`` is the published size. A smaller scale keeps the proportions: every count that says how large the
workload is (tasks, areas, pages) is multiplied by it, and never falls below one. The default scale is small, so that
all designs can be compared within seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rmap.kernel import Kernel
from rmap.lab.workloads.base import MAX_FRAMES, Parameter, Size, Steps, Workload


@dataclass(frozen=True, slots=True)
class Dimension:
    """A count of a published workload.

    Attributes:
        name: as a keyword of the generator.
        published: its published value.
        help: what it counts.
        scales: whether ``--scale`` multiplies it.
        least: below which it does not fall.
    """

    name: str
    published: int
    help: str
    scales: bool = True
    least: int = 1

    def scaled(self, value: int, scale: float) -> int:
        """The value at a scale."""
        return max(self.least, round(value * scale)) if self.scales else value


def published(
    name: str,
    summary: str,
    source: str,
    dimensions: Sequence[Dimension],
    run: Callable[..., Steps],
    size: Callable[..., Size],
    *,
    shows: tuple[str, ...],
    scale: float,
    others: Sequence[Parameter] = (),
    theme: str = "published",
) -> Workload:
    """A workload whose size is one factor.

    Args:
        source: who published it, and when.
        run: ``(kernel, *, seed, **dimensions, **others)``, with the counts as they are at the scale.
        size: of the same.
        scale: the default.
    """

    def at_scale(settings: dict[str, int | float]) -> dict[str, int | float]:
        scale = settings.pop("scale")
        return {**settings, **{d.name: d.scaled(int(settings[d.name]), scale) for d in dimensions}}

    def run_scaled(kernel: Kernel, *, seed: int = 1, **settings: int | float) -> Steps:
        return run(kernel, seed=seed, **at_scale(settings))

    def size_scaled(**settings: int | float) -> Size:
        return size(**at_scale(settings))

    parameters = [
        Parameter("scale", scale, "share", "of the published size", 0.0001, 1),
        *(Parameter(d.name, d.published, "count", d.help, 1, MAX_FRAMES) for d in dimensions),
        *others,
    ]
    return Workload(name, summary, tuple(parameters), run_scaled, size_scaled, shows, source=source, theme=theme)
