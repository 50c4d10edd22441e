"""The running kernel as judge: the same calls by the model and by real processes, compared after every step.

A real process that makes the calls it is told to make is a *puppet* (``puppet.c``). A :class:`Pair` is a model kernel
and a group of puppets in step: whatever is asked of it is done by both, and whatever can be observed of both is
compared (:mod:`.observed`). A :class:`Scenario` is a random sequence of calls; :func:`conform` plays one after the
other, and cuts what diverges down to the few calls that matter, as a script that can be run.
"""

from __future__ import annotations

from rmap.lab.conform.pair import Diverged, Model, Pair
from rmap.lab.conform.play import ScenarioPlayer
from rmap.lab.conform.program import missing_ability
from rmap.lab.conform.puppets import PuppetDied, Puppets
from rmap.lab.conform.run import ConformRun, Divergence, Incident, conform
from rmap.lab.conform.scenario import Scenario, ScenarioStep, at, pages, scenario
from rmap.lab.conform.script import in_step

__all__ = [
    "ConformRun",
    "Diverged",
    "Divergence",
    "Incident",
    "Model",
    "Pair",
    "PuppetDied",
    "Puppets",
    "Scenario",
    "ScenarioPlayer",
    "ScenarioStep",
    "at",
    "conform",
    "in_step",
    "missing_ability",
    "pages",
    "scenario",
]
