"""SWAPPABLE: one file per reverse map, behind the interface that :mod:`rmap.mm` owns.

:data:`DESIGNS` names them all. A design is loaded when it is first made, so listing them costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from rmap.errors import UsageError
from rmap.lazy import module_named

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
        variants: other classes of the same module by the name behind the colon: ``pte_chain:cells``.
    """

    name: str
    release: str
    essence: str
    module: str
    type_name: str
    variants: Mapping[str, str] = field(default_factory=dict)

    @property
    def factory(self) -> ReverseMapFactory:
        """The design's class; imports its module."""
        return self._load(self.type_name)

    def variant(self, name: str) -> ReverseMapFactory:
        """The class of a variant.

        Raises:
            UsageError: the design has no such variant.
        """
        if name not in self.variants:
            have = ", ".join(f"{self.name}:{variant}" for variant in self.variants) or "none"
            raise UsageError(f"unknown variant {self.name}:{name}: have {have}")
        return self._load(self.variants[name])

    def _load(self, type_name: str) -> ReverseMapFactory:
        return cast("ReverseMapFactory", getattr(module_named(self.module), type_name))

    def __call__(self, core: DesignCore, profile: Profile) -> ReverseMap:
        return self.factory(core, profile)


def _info(name: str, release: str, type_name: str, essence: str, **variants: str) -> DesignInfo:
    named = {variant.replace("v_", "").replace("_", "."): cls for variant, cls in variants.items()}
    return DesignInfo(name, release, essence, f"rmap.designs.{name}", type_name, named)


_ALL = (
    _info("virtual_scan", "2.4", "VirtualScan", "nothing is kept: the page tables of every process are gone through"),
    _info(
        "pte_chain",
        "2.6.0",
        "PteChain",
        "every page has a chain of the entries that map it",
        cells="PteCells",
    ),
    _info("lego_pcache", "LegoOS", "LegoPcache", "every line of a page cache has a record for each entry that maps it"),
    _info("objrmap", "2003", "Objrmap", "files through two lists of VMAs, anonymous pages on chains"),
    _info(
        "objrmap_prio",
        "2.6.7",
        "ObjrmapPrio",
        "files through a tree of VMAs, anonymous pages on chains",
        interval="ObjrmapInterval",
    ),
    _info("anonmm", "2004", "Anonmm", "an anonymous page knows its address, and the mms of its fork family"),
    _info("anon_vma", "2.6.7", "AnonVmaList", "an anonymous page hangs on an object that lists the family's VMAs"),
    _info(
        "anon_vma_chain",
        "6.18, 7.0, 5.1",
        "AnonVmaChainDesign",
        "every page hangs on an object that knows the VMAs which may map it",
        v_2_6_34="AnonVmaChain2634",
    ),
    _info("cow_context", "2026", "CowContexts", "an anonymous page hangs on its process's context, forks are below it"),
    _info("anon_vma_lazy", "2026", "AnonVmaLazy", "an anonymous page points at its VMA until that is forked"),
    _info("pv_chunk", "FreeBSD", "PvChunk", "every page has a list of entries, kept in chunks of their process"),
)

DESIGNS: Mapping[str, DesignInfo] = MappingProxyType({info.name: info for info in _ALL})
"""Every design, by name, in the order of history."""

DEFAULT_DESIGNS = ("pte_chain", "anon_vma_chain")
"""The two ideas that decided: what a comparison takes if nobody chooses."""


def design_names(variants: bool = False) -> list[str]:
    """Every design's name; with the variants, each behind its design."""
    return [
        name for info in _ALL for name in (info.name, *(f"{info.name}:{v}" for v in info.variants if variants))
    ]


def design_named(design: str | ReverseMapFactory) -> ReverseMapFactory:
    """The factory of a design.

    Args:
        design: a name in ``DESIGNS``, perhaps with a variant (``pte_chain:cells``); or a factory, which is returned
            as it is.

    Raises:
        UsageError: no design, or no variant of it, has this name.
    """
    if not isinstance(design, str):
        return design
    name, colon, variant = design.partition(":")
    info = DESIGNS.get(name)
    if info is None:
        raise UsageError(f"unknown design {name!r}: have {', '.join(DESIGNS)}")
    return info.variant(variant) if colon else info.factory
