"""A Ray cluster for as long as it is needed: one of this machine's own, or one that is there."""

import logging
import os
import signal
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from afpjax.deploy.service.cleanup import scratch_folder
from afpjax.evaluate.fleet import connect
from afpjax.inputs.errors import InputError

# Ray lays its sockets in there, and the system takes no longer paths for them than 107 characters.
_LONGEST_FOLDER = 20
_IGNORE = "RAY_IGNORE_UNHANDLED_ERRORS"
_STORE_BYTES = 256 * 2**20  # for tensors under way; those of one image are a few MB at most


def require_ray() -> None:
    """Raise `InputError` that says what to install where the extra `serve` is missing."""
    for module, name in (("ray", "Ray"), ("onnxruntime", "ONNX Runtime")):
        if find_spec(module) is None:
            raise InputError(
                f'job serve needs {name}, which is not installed; pip install "afpjax[serve]"'
            )


@contextmanager
def ray_cluster(address: str = "") -> Iterator[Any]:
    """The module `ray`, connected for one `with` block; with the block, all its processes end.

    `address` is that of a cluster, or "auto"; empty: one of this machine's own is begun, and
    nothing of it stays behind. It listens on this machine's address; who may talk to it is Ray's
    to say (RAY_AUTH_MODE). Where this process is connected already, that cluster is used and left
    as it is. Raises `InputError` where Ray is missing or the cluster does not answer.
    """
    require_ray()
    ray = _quiet_import()
    if ray.is_initialized():
        yield ray
        return
    with ExitStack() as stack:
        folder = "" if address else stack.enter_context(scratch_folder(_home()))
        stack.enter_context(_unreported(ray))
        stack.callback(ray.shutdown)
        with _silenced(ray), _signals_kept():
            _connect(ray, address, str(folder))
        yield ray


def _quiet_import() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module("ray")


def _connect(ray: Any, address: str, folder: str) -> None:
    if address:
        connect(address)
        return
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        num_cpus=1,  # devices ask for none: this is how many idle workers Ray begins with
        object_store_memory=_STORE_BYTES,
        _temp_dir=folder,
    )


def _home() -> str:
    own = tempfile.gettempdir()
    return own if len(own) <= _LONGEST_FOLDER or os.name != "posix" else "/tmp"


@contextmanager
def _silenced(ray: Any) -> Iterator[None]:
    """Without Ray's word that all is well; that a cluster is open to others is still said."""
    logger = logging.getLogger(ray.__name__)

    def worth(record: logging.LogRecord) -> bool:
        return "authentication is enabled" not in record.getMessage()

    # Ray may take its own handler away before it speaks: then Python's last resort does.
    handlers = [h for h in (*logger.handlers, logging.lastResort) if h is not None]
    for handler in handlers:
        handler.addFilter(worth)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for handler in handlers:
                handler.removeFilter(worth)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes signals for itself; the command has its own way to end a run."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _unreported(ray: Any) -> Iterator[None]:
    """Ray writes a paragraph for every process that is killed, and for all that waited for it."""
    before = os.environ.get(_IGNORE)
    os.environ[_IGNORE] = "1"
    worker = getattr(getattr(ray, "_private", None), "worker", None)
    printing = getattr(worker, "print_to_stdstream", None)  # there is no setting against this one
    try:
        if printing is not None:
            worker.print_to_stdstream = lambda *args, **kwargs: None  # pyright: ignore
        yield
    finally:
        if printing is not None:
            worker.print_to_stdstream = printing  # pyright: ignore
        if before is None:
            del os.environ[_IGNORE]
        else:
            os.environ[_IGNORE] = before
