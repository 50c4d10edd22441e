"""Names that are bound when first used, so that importing one light module of a package loads no heavy one.

The one place that imports a module by its name: whatever stands in such a name, no contract of imports sees.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def bind_when_used(package: str, homes: Mapping[str, str]) -> None:
    """Give a package names that live in its modules, none of which has the name of a module of the package.

    Args:
        package: its ``__name__``; called while it is imported.
        homes: name to module.
    """
    module = sys.modules[package]

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = module.__dict__[name] = getattr(module_named(homes[name]), name)
        return value

    module.__dict__["__getattr__"] = get


def module_named(name: str) -> ModuleType:
    """A module of this package, imported if need be.

    Raises:
        ImportError: there is no such module.
    """
    return import_module(name)
