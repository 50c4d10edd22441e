"""The runs of a report: every workload at several scales, under every design."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from rmap.errors import UsageError
from rmap.lab.compare.cache import ResultCache
from rmap.lab.compare.compare import compare_workload
from rmap.lab.results import Comparison, Progress, no_progress
from rmap.lab.workloads import WORKLOADS, Workload

SCALES = (0.25, 0.5, 1.0)
"""Of a workload's default scale."""


@dataclass(frozen=True, slots=True)
class ReportRun:
    """One workload.

    Attributes:
        workload: which.
        scales: of the published size, ascending; one 0 for a workload that has no scale.
        comparisons: one for each scale.
    """

    workload: Workload
    scales: tuple[float, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def equal(self) -> bool:
        """Whether every design was right at every scale."""
        return all(comparison.equal for comparison in self.comparisons)


def run_report(
    names: Sequence[str],
    *,
    designs: Sequence[str] | None = None,
    profile: str = "6.18",
    seed: int = 1,
    progress: Progress = no_progress,
    executor: Executor | None = None,
    cache: ResultCache | None = None,
) -> list[ReportRun]:
    """Run workloads at their scales.

    Args:
        names: workloads; none for all that were published.
        designs, profile, seed, progress, executor, cache: as for :func:`rmap.lab.compare.compare.compare_workload`.

    Raises:
        UsageError: a name is no workload's.
    """
    unknown = [name for name in names if name not in WORKLOADS]
    if unknown:
        raise UsageError(f"a report is about workloads (rmap workloads lists them), not {', '.join(unknown)}")
    chosen = [WORKLOADS[name] for name in names] or [w for w in WORKLOADS.values() if w.source]
    runs = []
    for workload in chosen:
        default = next((p.default for p in workload.parameters if p.name == "scale"), None)
        scales = (0.0,) if default is None else tuple(float(default) * share for share in SCALES)
        done = []
        for scale in scales:
            progress(f"{workload.name} at {scale:.2%}" if scale else workload.name)
            parameters = {"scale": scale} if scale else {}
            done.append(
                compare_workload(
                    workload.name,
                    parameters,
                    designs=designs,
                    profile=profile,
                    seed=seed,
                    progress=_only_words(progress),
                    executor=executor,
                    cache=cache,
                )
            )
        runs.append(ReportRun(workload, scales, tuple(done)))
    return runs


def _only_words(progress: Progress) -> Progress:
    def tell(event: object) -> None:
        if isinstance(event, str):
            progress(event)

    return tell
