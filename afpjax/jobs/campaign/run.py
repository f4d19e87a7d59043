"""Job `campaign`: how vulnerable a network is, where, and with what certainty."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from afpjax.campaigns import masks, strata
from afpjax.campaigns.counts import OutcomeCounts
from afpjax.campaigns.walk import Rules, Trials, Walk
from afpjax.config.config import Config
from afpjax.config.work import Work, summed
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import outcomes
from afpjax.experiment import EvaluatorParts, Experiment, prepare
from afpjax.faults.model import layer_mask
from afpjax.faults.sites import Fault
from afpjax.inputs.errors import InputError
from afpjax.jobs.campaign import fault_file as campaign_list
from afpjax.jobs.campaign import listed as campaign_listed
from afpjax.jobs.campaign import masks as campaign_masks
from afpjax.jobs.campaign import predicted, published
from afpjax.jobs.campaign import single as campaign_single
from afpjax.jobs.campaign.fault_lists import FaultList
from afpjax.jobs.campaign.result import CampaignResult, CleanImages, Found, MasksResult
from afpjax.jobs.campaign.view import view
from afpjax.jobs.shared import plans, records
from afpjax.jobs.shared.outcome import Outcome
from afpjax.jobs.shared.result import HeldOutImages, NoteResult, NumberFormat, Speed
from afpjax.network.quantized import Quantized

_SPENT = b"campaign: seconds and passes"


class Campaigned(NamedTuple):
    """What a design found, what has to be known of it, and its own files for the run folder."""

    found: Found
    notes: Sequence[NoteResult] = ()
    files: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True)
class CampaignParts:
    """What an experiment's campaign is made of."""

    experiment: Experiment
    layers: tuple[int, ...]
    crossing: tuple[int, ...]  # layers that read across a link

    @property
    def config(self) -> Config:
        return self.experiment.config

    @property
    def evaluator(self) -> Evaluator:
        return self.experiment.evaluator(_how_images_fail)


def run(config: Config, work: Work) -> Outcome:
    """Every cell's SDC rate and accuracy with intervals, how faults end, and the worst of them."""
    campaign = _campaign(prepare(config, work, measured_images=config.campaign.images))
    experiment, settings = campaign.experiment, config.campaign
    (found, notes, files), throughput = _timed(campaign, _design(campaign))
    clean = campaign.evaluator.reference.argmax(axis=1) == experiment.held.labels
    vulnerability, correlation = None, None
    if predicted.foreseen(experiment):
        vulnerability, correlation = predicted.compared(experiment, found.cells)
    made = MasksResult if settings.design == "bernoulli" else CampaignResult
    result = made(
        model=records.model(experiment),
        data=HeldOutImages(experiment.data_name, len(experiment.held.labels)),
        format=NumberFormat(config.format.kind, experiment.format.width),
        clean=CleanImages(float(clean.mean()), len(clean)),
        targets=list(settings.targets),
        **vars(found),
        notes=[*records.notes(experiment), *notes],
        vulnerability=vulnerability,
        vulnerability_correlation=correlation,
        throughput=throughput,
    )
    return Outcome(result, view=view(result), files=files)


def plan(config: Config, work: Work) -> object:
    """Trials in all cells together, where they stop as early as they can, and at most."""
    experiment = prepare(config, work, measured_images=config.campaign.images)
    campaign, (_, images) = _campaign(experiment), plans.counts(experiment)
    cells, least, most = _trials(campaign)
    steps = [
        plans.Step("without faults", images),
        plans.Step(f"under faults, {images:,} images each", most * images, least * images),
    ]
    note = f"{cells:,} cells, {least:,} to {most:,} trials (faults or masks)."
    return plans.shown(experiment, steps, note)


def _how_images_fail(experiment: Experiment) -> EvaluatorParts:
    """How each held-out image fails, not only whether."""
    settings = experiment.config.campaign
    metric = outcomes(settings.not_finite, exact=settings.design == "listed")
    return EvaluatorParts("campaign", experiment.held, metric)


def _campaign(experiment: Experiment) -> CampaignParts:
    graph, settings = experiment.graph, experiment.config.campaign
    faulty = np.flatnonzero(layer_mask(experiment.faults, graph))
    if settings.mapping and len(settings.mapping) != len(graph.layers):
        raise InputError(
            f"campaign.mapping: {len(settings.mapping)} devices for {len(graph.layers)} layers; "
            "give one for each"
        )
    crossing = _crossing(experiment) if "link" in settings.targets else ()
    if settings.design == "listed":  # refused before a network is trained
        _ = (campaign_list.read if settings.list else _sites)(experiment)
    return CampaignParts(experiment, tuple(faulty.tolist()), crossing)


def _crossing(experiment: Experiment) -> tuple[int, ...]:
    """Layers that read what another device has made, under `campaign.mapping`."""
    graph, given = experiment.graph, experiment.config.campaign.mapping
    home = given or tuple(range(len(graph.layers)))
    found = {
        reader
        for tensor in graph.tensors
        for reader in tensor.consumers
        if tensor.producer >= 0 and home[reader] != home[tensor.producer]
    }
    if not found:
        raise InputError("campaign.targets: nothing crosses a link under campaign.mapping")
    return tuple(sorted(found))


def _design(campaign: CampaignParts) -> Callable[[], Campaigned]:
    """What the design is to do, checked but not yet begun."""
    experiment, settings = campaign.experiment, campaign.config.campaign
    if settings.design == "bernoulli":
        wanted = _cells(campaign)
        return lambda: Campaigned(*campaign_masks.found(experiment, campaign.evaluator, wanted))
    if settings.design == "listed" and settings.list:
        listed = campaign_list.read(experiment)
        return lambda: _of_list(campaign, listed)
    if settings.design == "listed":
        sites = _sites(experiment)
        return lambda: Campaigned(campaign_listed.found(experiment, campaign.evaluator, sites))
    walk = _walk(campaign)

    def single() -> Campaigned:
        with experiment.work.progress.task("Striking", int(walk.most().sum())) as task:
            walk.run(task.advance)
        return Campaigned(campaign_single.found(experiment, walk))

    return single


def _of_list(campaign: CampaignParts, faults: FaultList) -> Campaigned:
    """A file's faults: injected, compared with what the file says of them, and written again."""
    ended = campaign_list.inject_list(campaign.experiment, campaign.evaluator, faults)
    found, more = campaign_list.found(campaign.experiment, ended), {}
    if faults.counts is not None:
        confidence = campaign.config.campaign.confidence
        found = replace(found, published=published.compared(ended, faults.counts, confidence))
        more = published.columns(ended, faults.counts)
    return Campaigned(found, files={campaign_list.FILE: campaign_list.table(ended, more)})


def _cells(campaign: CampaignParts) -> list[masks.Cell]:
    settings = campaign.config.campaign
    return masks.cells(
        campaign.experiment.faults,
        by=settings.strata,
        targets=settings.targets,
        layers=campaign.layers,
        crossing=campaign.crossing,
        rates=settings.rates,
        network=campaign.experiment.outline.layers,
    )


def _walk(campaign: CampaignParts) -> Walk:
    config, evaluator = campaign.config, campaign.evaluator
    made = _strata(campaign, campaign.experiment.quantized)
    reference, count = evaluator.reference, evaluator.count
    counts = OutcomeCounts(len(made), count, reference.argmax(axis=1), reference.shape[1])
    own = config.faults.scope in ("", "image") and config.campaign.design != "exhaustive"
    return Walk(
        evaluator,
        made,
        _rules(config),
        counts,
        seed=config.run.seed,
        images=count if own else 1,
        shared=config.faults.shared,
    )


def _strata(campaign: CampaignParts, quantized: Quantized) -> tuple[strata.Stratum, ...]:
    """What an answer is asked for each of; of the network, its layers and format are enough."""
    config = campaign.config
    settings, faults = config.campaign, config.faults
    if faults.scope == "image" and "weights" in settings.targets:
        raise InputError(
            "faults.scope: single faults of weights stay for all images of a trial; use "
            "campaign.design = bernoulli for weights struck anew for every image"
        )
    lengths = {"burst": faults.burst, "lost": faults.packet}
    return strata.strata(
        quantized,
        strata.Single(faults.kind, lengths.get(faults.kind, 1), settings.count),
        by=settings.strata,
        targets=settings.targets,
        layers=campaign.layers,
        bits=sorted(settings.bits) or range(quantized.format.width),
        crossing=campaign.crossing,
        shared=faults.shared,
    )


def _rules(config: Config) -> Rules:
    settings = config.campaign
    return Rules(
        settings.design,
        settings.interval,
        settings.margin,
        settings.confidence,
        settings.trials,
        settings.sequential,
    )


def _trials(campaign: CampaignParts) -> tuple[int, int, int]:
    """Cells, and the fewest and the most trials of all of them together."""
    settings, experiment = campaign.config.campaign, campaign.experiment
    if settings.design == "bernoulli":
        wanted = _cells(campaign)
        at = masks.looks(masks.asked(experiment.faults, settings.trials))
        return len(wanted), len(wanted) * at[0], len(wanted) * at[-1]
    if settings.design == "listed":
        count = len((campaign_list.read if settings.list else _sites)(experiment))
        return count, count, count
    made = _strata(campaign, experiment.outline)
    trials = Trials(made, _rules(campaign.config))
    return len(made), int(trials.least().sum()), int(trials.most().sum())


def _sites(experiment: Experiment) -> dict[str, Fault]:
    return campaign_listed.faults(experiment, experiment.config.campaign.sites)


def _timed(campaign: CampaignParts, design: Callable[[], Campaigned]) -> tuple[Campaigned, Speed]:
    """What a design found, and its speed: over all attempts, where it was interrupted."""
    evaluator, memory = campaign.evaluator, campaign.experiment.work.memory
    clean = evaluator.clean_rate()
    before, start = evaluator.evaluations, monotonic()

    def spent() -> tuple[float, float]:
        done = (evaluator.evaluations - before) * evaluator.count
        return monotonic() - start, float(done)

    with summed(memory, _SPENT, spent) as total:
        found = design()
        seconds, passes = total()
    return found, Speed(passes / seconds, clean, int(passes))
