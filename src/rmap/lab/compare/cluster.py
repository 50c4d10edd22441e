"""A cluster's executor, by its address: ``dask://HOST:PORT`` (the extra ``cluster``)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

from rmap.errors import NotPermitted, SourceError, UsageError

DASK = "dask://"


@contextmanager
def executor_at(address: str) -> Iterator[Executor]:
    """The executor of an address, for as long as the block lasts.

    Args:
        address: ``dask://HOST:PORT`` of a scheduler, or ``threads:N`` (for trying things out).

    Raises:
        UsageError: no such kind of address.
        NotPermitted: dask.distributed is not installed.
        SourceError: nobody answers there.
    """
    kind, colon, rest = address.partition(":")
    if kind == "threads" and colon and rest.isdigit() and int(rest) > 0:
        with ThreadPoolExecutor(int(rest)) as pool:
            yield pool
        return
    if not address.startswith(DASK) or ":" not in address.removeprefix(DASK):
        raise UsageError(f"an executor is dask://HOST:PORT or threads:N, not {address!r}")
    try:
        from dask.distributed import Client
    except ImportError:
        raise NotPermitted(
            "dask.distributed is not installed",
            needed="the extra: pip install 'linux-rmap[cluster]'",
            works="rmap compare without --executor",
        ) from None
    try:
        client = Client("tcp://" + address.removeprefix(DASK), timeout=10)
    except (OSError, TimeoutError) as error:
        raise SourceError(f"no dask scheduler answers at {address}: {error}") from None
    try:
        yield client.get_executor()
    finally:
        client.close()
