"""What has to be said where an experiment expects less than one fault in all its trials."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from afpjax.campaigns import expected
from afpjax.campaigns.masks import Cell
from afpjax.experiment import Experiment
from afpjax.faults.model import FaultModel
from afpjax.inputs.notes import Note


def of_mapping(experiment: Experiment, mapping: Int[np.ndarray, "L"], what: str) -> list[Note]:
    """Of a mapping under all faults, as it is measured on the held-out images."""
    trials, images = experiment.config.search.final_trials, experiment.held_out.count
    faults = expected.under_mapping(
        experiment.scenario("both"), experiment.quantized, mapping, trials=trials, images=images
    )
    return _note(faults, f"{what} meets", trials, images)


def of_shared_out(experiment: Experiment, faults: FaultModel, devices: int) -> list[Note]:
    """Of neurons that devices share out, as if every device held all of them: at most so many."""
    trials, images = experiment.config.search.final_trials, experiment.held_out.count
    everywhere = np.ones(len(experiment.quantized.layers), np.int32)
    found = sum(
        expected.under_mapping(
            faults, experiment.quantized, everywhere * device, trials=trials, images=images
        )
        for device in range(devices)
    )
    return _note(found, "The network while bits flip meets at most", trials, images)


def of_cells(
    experiment: Experiment, cells: Sequence[Cell], masks: Sequence[int], images: int
) -> list[Note]:
    """Of a campaign's cells, each under so many masks."""
    found = [
        expected.in_cell(
            experiment.faults, cell, experiment.quantized.layers, trials=trials, images=images
        )
        for cell, trials in zip(cells, masks, strict=True)
        if cell.target != "link"
    ]
    few = [faults for faults in found if _is_few(faults)]
    if not few:
        return []
    text = (
        f"{len(few)} of {len(cells)} cells expect less than one fault in all their trials "
        f"({_number(min(few))} to {_number(max(few))}): {_MEANS}"
    )
    facts = {"expected_faults": min(few), "cells": len(few)}
    return [Note("few-faults", text, facts)]


_MEANS = (
    "such an answer is most likely that of the network without faults. More trials or images, or "
    "higher rates, would tell more."
)


def _note(faults: float, what: str, trials: int, images: int) -> list[Note]:
    if not _is_few(faults):
        return []
    text = (
        f"{what} {_number(faults)} faults in expectation, in all its {trials} trials of {images} "
        f"images: {_MEANS}"
    )
    return [Note("few-faults", text, {"expected_faults": faults})]


def _is_few(faults: float) -> bool:
    """Less than one, though there are some to expect."""
    return 0 < faults < 1


def _number(faults: float) -> str:
    return f"{faults:.2g}"
