"""Names of a package that are bound when first used, so that importing one light module of it loads no heavy one."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def bind_when_used(package: str, homes: Mapping[str, str]) -> None:
    """Give a package names that live in its modules.

    A name may be that of its module, too (``rmap.live.capture``): the import system then puts the module into the
    package, and the name still means what is in it.

    Args:
        package: its ``__name__``; called while it is imported.
        homes: name to module.
    """
    names = {name: _name(package, name, home) for name, home in homes.items()}
    sys.modules[package].__class__ = type("LazyPackage", (ModuleType,), names)


def _name(package: str, name: str, home: str) -> property:
    def get(module: ModuleType) -> Any:
        if name not in module.__dict__:
            module.__dict__[name] = getattr(import_module(home), name)
        return module.__dict__[name]

    def put(module: ModuleType, value: object) -> None:
        if value is not sys.modules.get(f"{package}.{name}"):
            module.__dict__[name] = value

    def drop(module: ModuleType) -> None:
        module.__dict__.pop(name, None)

    return property(get, put, drop)
