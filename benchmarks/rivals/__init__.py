"""The rivals, one module each; imported when a measure wants them, skipped where not installed."""

from importlib import import_module
from typing import Any

INSTALL = 'pip install -e ".[bench]"'


class NotInstalled(Exception):
    """A rival's package is missing; says how to install it."""


def load(name: str) -> Any:
    """The module `benchmarks.rivals.NAME`; raises `NotInstalled` where its package is missing."""
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package in ("", "benchmarks", "afpjax"):
            raise
        raise NotInstalled(
            f"{package} is not installed: rival `{name}` is skipped; {INSTALL}"
        ) from missing
