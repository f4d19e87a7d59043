"""The networks trained here: once, then from the cache; after a kill, from a checkpoint."""

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from afpjax.config import sections
from afpjax.data.dataset import Dataset
from afpjax.faults import bits
from afpjax.inputs.errors import InputError
from afpjax.inputs.files import cache_folder

from . import zoo
from .training.batches import Batches, Reading
from .training.checkpoint import Checkpoints
from .training.fault_aware import Conditions as Conditions
from .training.fault_aware import train_under_faults
from .training.from_scratch import train
from .training.loop import Progress

_RECIPE = 1  # part of a cached network's name: raise it whenever training changes
# What weights do not depend on: those learnt under faults depend on the ones that they start from.
_ASIDE_UNDER_FAULTS = ("weights", "checkpoint_minutes", "epochs", "learning_rate")
_ASIDE = ("weights", "checkpoint_minutes", "faults", "fault_epochs", "fault_learning_rate")


def trained(
    model: sections.Model,
    settings: sections.Train,
    dataset: Dataset,
    *,
    seed: int,
    conditions: Conditions | None = None,
    progress: Progress = lambda done, steps: None,
    reading: Reading = lambda done, images: None,
) -> tuple[zoo.ApplyFn, zoo.Params]:
    """A network of the zoo, trained on a data set's training images: once, then from the cache.

    From scratch, or, where `model.weights` names a file, from there. Where `settings.faults` is set
    it then learns on under `conditions`. Each of the two is an `.npz` state dict in the cache
    folder (`afpjax.inputs.files`), named after everything that its weights depend on; one that
    cannot be read is made again. Beside it lies a folder with the checkpoints of a training under
    way, from which the next call goes on; it goes when the weights are there.

    `progress(done, total)` counts the steps of what is left to train, `reading(done, total)` the
    images that are read before the first. Raises `InputError` where there are no training images,
    the network cannot read them, the cache cannot be written, or there are no conditions.
    """
    if dataset.train is None:
        raise InputError("model.weights: the data set has no training images; name trained weights")
    zoo.refuse_images(model.name, (0, *dataset.train.shape), model.image_size)
    job = _Job(model, settings, dataset, seed, Batches(dataset.train, settings.batch, reading))
    if not settings.faults:
        return job.apply_fn, job.fault_free(progress)
    if conditions is None:
        raise InputError("train.faults: there are no faults to train with; give `conditions`")
    return job.apply_fn, job.under_faults(conditions, progress)


@dataclass(frozen=True)
class _Job:
    """What is trained, and on what."""

    model: sections.Model
    settings: sections.Train
    dataset: Dataset
    seed: int
    batches: Batches

    @property
    def size(self) -> dict[str, Any]:
        return {"classes": self.model.classes, "width": self.model.width}

    @property
    def shared(self) -> dict[str, Any]:
        """What both trainings are given."""
        normal = {"mean": self.dataset.mean, "std": self.dataset.std}
        return {"settings": self.settings, "seed": self.seed, **normal}

    @cached_property
    def apply_fn(self) -> zoo.ApplyFn:
        return zoo.apply_fn_of(self.model.name, image_size=self.model.image_size, **self.size)

    def load(self, path: Path | str) -> zoo.Params:
        name, size = self.model.name, self.model.image_size
        return zoo.load(name, path, image_size=size, **self.size)[1]

    def fault_free(self, progress: Progress) -> zoo.Params:
        """The weights before any fault."""
        if self.model.weights:
            return self.load(self.model.weights)

        def make(checkpoints: Checkpoints) -> zoo.Params:
            new = zoo.create(self.model.name, seed=self.seed, **self.size)
            kept = {"checkpoints": checkpoints, "progress": progress}
            return zoo.params_of(train(new, self.batches, **self.shared, **kept))

        return self.once(self.fingerprint(), make)

    def under_faults(self, conditions: Conditions, progress: Progress) -> zoo.Params:
        """The weights after the epochs with faults."""
        before = 0  # steps of the training that went before, where it had to be done

        def earlier(done: int, steps: int) -> None:
            nonlocal before
            before = steps
            progress(done, steps + self.settings.fault_epochs * self.batches.steps)

        def make(checkpoints: Checkpoints) -> zoo.Params:
            return train_under_faults(
                self.apply_fn,
                _with_params(start, self.model.name, self.size),
                self.batches,
                conditions,
                checkpoints=checkpoints,
                progress=lambda done, steps: progress(before + done, before + steps),
                **self.shared,
            )

        start = self.fault_free(earlier)
        return self.once(self.fingerprint(start, conditions), make)

    def once(self, fingerprint: str, make: Callable[[Checkpoints], zoo.Params]) -> zoo.Params:
        """What the cache has under this name; else it is made, and put there."""
        path = cache_folder() / f"{self.model.name}-{fingerprint}.npz"
        if os.path.lexists(path):
            try:
                return self.load(path)
            except InputError as error:
                warnings.warn(f"the cached weights are made anew: {error}", stacklevel=2)
        _refuse_unwritable(path.parent)
        checkpoints = Checkpoints(
            path.with_suffix(".checkpoints"), self.settings.checkpoint_minutes
        )
        params = make(checkpoints)
        zoo.save(path, params)
        checkpoints.remove()
        return params

    def fingerprint(
        self, start: zoo.Params | None = None, conditions: Conditions | None = None
    ) -> str:
        """Sixteen hexadecimal digits of everything that the weights depend on.

        With `conditions`, of the weights that learnt on under them from `start`.
        """
        known = {**asdict(self.model), **asdict(self.settings)}
        known.update(mean=self.dataset.mean, std=self.dataset.std, seed=self.seed, recipe=_RECIPE)
        if conditions:
            under = asdict(conditions)
            if not conditions.faults.strikes_link:  # then nothing was learnt from it
                del under["faults"]["link_rate"], under["faults"]["link_kind"]
            known["conditions"] = under | {"draws": bits.DRAWS}
        for name in _ASIDE if conditions is None else _ASIDE_UNDER_FAULTS:
            del known[name]
        digest = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode())
        assert self.dataset.train is not None
        digest.update(self.dataset.train.fingerprint())
        for leaf in jax.tree.leaves(start):
            digest.update(np.ascontiguousarray(leaf).data)
        return digest.hexdigest()[:16]


def _with_params(params: zoo.Params, name: str, size: dict[str, Any]) -> nnx.Module:
    """The zoo's network with these weights in it."""
    model = nnx.eval_shape(lambda: zoo.NETWORKS[name](**size, rngs=nnx.Rngs(0)))
    state = nnx.state(model, (nnx.Param, nnx.BatchStat))
    nnx.replace_by_pure_dict(state, params)
    nnx.update(model, state)
    return model


def _refuse_unwritable(folder: Path) -> None:
    """Before a long training, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(
            f"the cache folder {folder} cannot be written ({error.strerror}); "
            "set AFPJAX_CACHE to a folder that can"
        ) from error
