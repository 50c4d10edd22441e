"""The abilities of this machine and this user: what rmap can see, what it cannot, and what would help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rmap.show.text import WIDTH, plural, wrap

STATE_WIDTH = 5


class AbilityLine(Protocol):
    """One thing that rmap may be able to see or do here."""

    @property
    def name(self) -> str:
        """What it is: ``"page frame numbers"``."""

    @property
    def serves(self) -> str:
        """What needs it: ``"snap, who, check"``."""

    @property
    def missing(self) -> str | None:
        """None if it is there, else what is missing, in words."""

    @property
    def remedy(self) -> str:
        """What would bring it, or ``""``."""


def doctor(abilities: Sequence[AbilityLine], *, release: str) -> list[str]:
    """The lines of ``rmap doctor``.

    Args:
        abilities: all of them, in order of importance.
        release: of the running kernel.
    """
    missing = sum(ability.missing is not None for ability in abilities)
    answer = f"{plural(missing, 'ability', 'abilities')} missing" if missing else "all abilities are there"
    lines = [*wrap(f"Linux {release}: {answer}"), ""]
    for ability in abilities:
        lines += _ability(ability)
    return [*lines, "", *wrap("The model needs none of this: rmap demo, rmap compare, rmap explain work everywhere.")]


def _ability(ability: AbilityLine) -> list[str]:
    state = "yes" if ability.missing is None else "NO"
    served = f"for {ability.serves}" if ability.serves else ""
    lines = wrap(f"{ability.name}  {served}".rstrip(), f"{state:<{STATE_WIDTH}}", width=WIDTH)
    indent = " " * STATE_WIDTH
    if ability.missing is not None:
        lines += wrap(f"missing: {ability.missing}", indent)
        if ability.remedy:
            lines += wrap(f"helps: {ability.remedy}", indent)
    return lines
