"""A Ray cluster of a test's own."""

import warnings


def begin_cluster() -> None:
    """What jobs then find as `auto`, though files that run beside this one have clusters too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        ray.shutdown()  # of another file
        quiet = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
        ray.init(address="local", **quiet)
