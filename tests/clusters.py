"""A Ray cluster of a test's own."""

import warnings
from importlib import import_module
from typing import Any


def begin_cluster() -> None:
    """What jobs then find as `auto`, though files that run beside this one have clusters too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray: Any = import_module("ray")
        ray.shutdown()  # of another file
        ray.init(
            address="local", include_dashboard=False, log_to_driver=False, configure_logging=False
        )
