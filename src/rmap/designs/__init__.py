"""SWAPPABLE: one file per reverse map, behind the interface that :mod:`rmap.mm` owns.

:data:`DESIGNS` names them all. A design is loaded when it is first made, so listing them costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from rmap.errors import UsageError

if TYPE_CHECKING:
    from rmap.mm.interface import DesignCore, ReverseMap, ReverseMapFactory
    from rmap.mm.profile import Profile


@dataclass(frozen=True, slots=True)
class DesignInfo:
    """What there is to know of a design before it is loaded. Calling it makes one: it is a factory.

    Attributes:
        name: the key in ``DESIGNS``.
        release: the Linux releases it models.
        essence: in one line, how it finds the entries of a page.
        module, type_name: where it is.
    """

    name: str
    release: str
    essence: str
    module: str
    type_name: str

    @property
    def factory(self) -> ReverseMapFactory:
        """The design's class; imports its module."""
        return cast("ReverseMapFactory", getattr(import_module(self.module), self.type_name))

    def __call__(self, core: DesignCore, profile: Profile) -> ReverseMap:
        return self.factory(core, profile)


_ALL = (
    DesignInfo(
        "pte_chain",
        "2.6.0",
        "every page has a chain of the entries that map it",
        "rmap.designs.pte_chain",
        "PteChain",
    ),
    DesignInfo(
        "anon_vma_chain",
        "6.18, 7.0",
        "every page hangs on an object that knows the VMAs which may map it",
        "rmap.designs.anon_vma_chain",
        "AnonVmaChainDesign",
    ),
)

DESIGNS: Mapping[str, DesignInfo] = MappingProxyType({info.name: info for info in _ALL})
"""Every design, by name, in the order of history."""


def design_named(design: str | ReverseMapFactory) -> ReverseMapFactory:
    """The factory of a design.

    Args:
        design: a name in ``DESIGNS``, or a factory, which is returned as it is.

    Raises:
        UsageError: no design has this name.
    """
    if not isinstance(design, str):
        return design
    info = DESIGNS.get(design)
    if info is None:
        raise UsageError(f"unknown design {design!r}: have {', '.join(DESIGNS)}")
    return info.factory
