"""Rows run by workers on other machines, through Ray: the same answers as one engine gives.

Every worker is an actor that builds the engine for itself, on the device that it owns, and answers
for some rows at a time. Ray starts a worker anew when its process or machine dies, and sends the
rows that it had again; what has been answered is with whoever asked, and is never lost.
"""

import os
import socket
import warnings
from collections import deque
from collections.abc import Callable, Generator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Float

from afpjax.evaluate.engine import ROWS, Engine, Outcome
from afpjax.evaluate.rows import FaultRows
from afpjax.faults.spec import FaultSpec
from afpjax.inputs.errors import InputError
from afpjax.network.digest import arithmetic

AHEAD = 2  # units that a worker has before it: the next is there when one is done
PATIENCE = 5.0  # seconds that a cluster may take to answer


class Fleet:
    """An engine whose rows run elsewhere; `own` is this process's, for what is needed here.

    `make` builds a worker's engine, in the worker. `address` is "auto", for the cluster that this
    machine belongs to or else one of its own, or HOST:PORT. `workers`: how many, 0 for one on each
    machine, or on each GPU. Raises `InputError` where Ray is missing, the cluster does not answer,
    or a worker holds another network.
    """

    def __init__(
        self, own: Engine, make: Callable[[], Engine], *, address: str, workers: int = 0
    ) -> None:
        self._own, self._ray = own, connect(address)
        options, count = self._placing(workers)
        actor = self._ray.remote(_Worker).options(max_restarts=-1, max_task_retries=-1, **options)
        self._workers = [actor.remote(make) for _ in range(count)]
        for worker in self._workers:
            if (theirs := self._ray.get(worker.arithmetic.remote())) != arithmetic():
                raise InputError(
                    "run.cluster: a worker's numbers may round differently than this machine's: "
                    f"there {theirs}; here {arithmetic()}; use machines of one kind"
                )
            if self._ray.get(worker.network.remote()) != own.fingerprint:
                raise InputError(
                    "run.cluster: a worker has another network than this machine; give all of "
                    "them the same files and weights (model.weights, or a shared AFPJAX_CACHE)"
                )

    def run(self, spec: FaultSpec, rows: FaultRows) -> Generator[tuple[int, Outcome], None, None]:
        """As `Engine.run`; units of rows with much in common go to whichever worker is free."""
        order, units = rows.in_order(), deque[np.ndarray]()
        size = max(1, min(ROWS, -(-len(order) // (len(self._workers) * AHEAD))))
        for start in range(0, len(order), size):
            units.append(order[start : start + size])
        free, under_way = deque(self._workers * AHEAD), dict[Any, tuple[Any, np.ndarray]]()
        try:
            while units or under_way:
                while units and free:
                    worker, numbers = free.popleft(), units.popleft()
                    task = worker.run.remote(spec, rows.take(numbers))
                    under_way[task] = worker, numbers
                (done,), _ = self._ray.wait(list(under_way), num_returns=1)
                worker, numbers = under_way.pop(done)
                free.append(worker)
                for within, outcome in self._ray.get(done):
                    yield int(numbers[within]), outcome
        finally:
            for task in under_way:
                self._ray.cancel(task)

    def clean_logits(self) -> Float[np.ndarray, "N classes"]:
        """Fault-free logits of every image."""
        return self._own.clean_logits()

    def clean_rate(self, spec: FaultSpec) -> float:
        """Fault-free images per second of this machine alone."""
        return self._own.clean_rate(spec)

    def _placing(self, workers: int) -> tuple[dict[str, Any], int]:
        """What a worker asks of Ray, and how many there are to be."""
        gpus = int(self._ray.cluster_resources().get("GPU", 0))
        machines = sum(node["Alive"] for node in self._ray.nodes())
        # A worker's threads use every core of its machine: it must not wait for any to be free.
        options = {"num_cpus": 0, "num_gpus": 1 if gpus else 0, "scheduling_strategy": "SPREAD"}
        # Sums that XLA splits over its threads are to round there as they do here.
        if "NPROC" in os.environ:
            options["runtime_env"] = {"env_vars": {"NPROC": os.environ["NPROC"]}}
        return options, workers or gpus or machines


class _Worker:
    def __init__(self, make: Callable[[], Engine]) -> None:
        self._engine = make()

    def arithmetic(self) -> str:
        return arithmetic()

    def network(self) -> bytes:
        return self._engine.fingerprint

    def run(self, spec: FaultSpec, rows: FaultRows) -> list[tuple[int, Outcome]]:
        return list(self._engine.run(spec, rows))


def require() -> None:
    """Raise `InputError` that says what to install where Ray is missing."""
    if find_spec("ray") is None:
        raise InputError(
            'run.cluster: needs Ray, which is not installed; pip install "afpjax[cluster]"'
        )


def connect(address: str) -> Any:
    """The module `ray`, connected. Raises `InputError` where that cannot be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        require()
        ray: Any = import_module("ray")
        if address != "auto":
            _reach(address)
        quiet = {"log_to_driver": False, "configure_logging": False, "ignore_reinit_error": True}
        try:
            ray.init(address="auto" if address == "auto" else address, **quiet)
        except ConnectionError as error:
            if address != "auto":
                raise InputError(f"run.cluster: {address} is no Ray cluster: {error}") from error
            ray.init(include_dashboard=False, **quiet)
    return ray


def _reach(address: str) -> None:
    """Raise `InputError` unless something listens there; Ray itself would wait for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        raise InputError(f"run.cluster: {address!r} is neither auto nor HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer"
        raise InputError(f"run.cluster: cannot reach {address}: {reason}") from error
