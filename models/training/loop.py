"""The loop of every training: epochs of compiled steps, which may be interrupted at any instant.

Everything that a step depends on follows from the seed, the number of steps done and the state, so
a training that goes on from a checkpoint ends with the bits of one that was never stopped.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from afpjax.data.images import Images
from afpjax.inputs.errors import InputError

from .batches import Batches
from .checkpoint import Checkpoints

#: Told after each step: how many are done, and of how many.
Progress = Callable[[int, int], Any]


class Stage(NamedTuple):
    """A training: what a step does. `state` is a pytree of arrays, the whole of what it learns."""

    epochs: int
    seeds: tuple[int, ...]  # of the order of the images
    begin: Callable[[int, Any], Any]  # epoch, state -> the state that the epoch starts with
    step: Callable[[int, int, Any, Images], tuple[Any, Float[Array, ""]]]
    # epoch, number in it, state, batch -> state, loss
    learning_rate: str  # the setting that is to blame where the loss is no number


class _Reached(NamedTuple):
    done: int  # steps
    state: Any
    loss: Any = None  # of the last of these steps; None where that was another process


def run(
    stage: Stage,
    batches: Batches,
    state: Any,
    checkpoints: Checkpoints | None,
    progress: Progress,
) -> Any:
    """The state after all epochs, begun at `state` or at the newest checkpoint.

    An interruption (`KeyboardInterrupt`) leaves a checkpoint of the last whole step. Raises
    `InputError`, and removes the checkpoints, when the loss stops being finite.
    """
    reached, steps = _Reached(0, state), batches.steps
    found = checkpoints and checkpoints.latest(state)
    if found:
        reached = _Reached(*found)
    saved, since = reached.done, time.monotonic()
    progress(reached.done, stage.epochs * steps)
    try:
        while reached.done < stage.epochs * steps:
            epoch, first = divmod(reached.done, steps)
            if first == 0:
                reached = reached._replace(state=stage.begin(epoch, reached.state))
            order = batches.epoch(stage.seeds, epoch, first)
            for number, batch in enumerate(order, start=first):
                state, loss = stage.step(epoch, number, reached.state, batch)
                # Waits for the step before only, so that the next batch is made during this one.
                _refuse_not_finite(stage, epoch, reached.loss, checkpoints)
                reached = _Reached(reached.done + 1, state, loss)
                if checkpoints and checkpoints.due(since):
                    _refuse_not_finite(stage, epoch, loss, checkpoints)
                    checkpoints.save(reached.done, state)
                    saved, since = reached.done, time.monotonic()
                progress(reached.done, stage.epochs * steps)
    except KeyboardInterrupt:
        if checkpoints and reached.done > saved and np.isfinite(reached.loss):
            checkpoints.save(reached.done, reached.state)
        raise
    _refuse_not_finite(stage, stage.epochs - 1, reached.loss, checkpoints)
    return reached.state


def _refuse_not_finite(
    stage: Stage, epoch: int, loss: Any, checkpoints: Checkpoints | None
) -> None:
    if loss is None or np.isfinite(loss):
        return
    if checkpoints:
        checkpoints.remove()  # they lead here again
    raise InputError(
        f"{stage.learning_rate}: the loss is no number in epoch {epoch + 1}; take a smaller one"
    )
