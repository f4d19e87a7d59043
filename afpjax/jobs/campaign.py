"""Job `campaign`: how vulnerable a network is, where, and with what certainty."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from afpjax.config import Config
from afpjax.errors import InputError
from afpjax.experiment import Experiment, prepare
from afpjax.faults import masks, strata
from afpjax.faults.campaign import Rules, Walk
from afpjax.faults.evaluate import Evaluator
from afpjax.faults.model import layer_mask
from afpjax.faults.sites import Fault
from afpjax.faults.tally import Tally
from afpjax.jobs import campaign_list, campaign_listed, campaign_masks, campaign_single, records
from afpjax.jobs import campaign_predicted as predicted
from afpjax.jobs import campaign_published as published
from afpjax.jobs.campaign_plan import Plan, shown
from afpjax.jobs.campaign_summary import summary
from afpjax.jobs.fault_lists import FaultList
from afpjax.jobs.records import Record
from afpjax.outcome import Outcome, Work
from afpjax.store import summed

_SPENT = b"campaign: seconds and passes"


class Found(NamedTuple):
    """What a design found, and its own files for the run folder."""

    record: Record
    files: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True)
class Campaign:
    """What an experiment's campaign is made of."""

    experiment: Experiment
    evaluator: Evaluator
    layers: tuple[int, ...]
    crossing: tuple[int, ...]  # layers that read across a link

    @property
    def config(self) -> Config:
        return self.experiment.config


def run(config: Config, work: Work) -> Outcome:
    """Every cell's SDC rate and accuracy with intervals, how faults end, and the worst of them."""
    campaign = _campaign(prepare(config, work))
    experiment, settings = campaign.experiment, config.campaign
    (found, files), throughput = _timed(campaign, _design(campaign))
    clean = campaign.evaluator.reference.argmax(axis=1) == experiment.held.labels
    result = {
        "model": records.model(experiment),
        "data": {"name": config.data.name, "images": len(experiment.held.labels)},
        "format": {"kind": config.format.kind, "bits": experiment.quantized.format.width},
        "clean": {"accuracy": clean.mean(), "images": len(clean)},
        "targets": list(settings.targets),
        **found,
        "notes": [*records.notes(experiment), *found.get("notes", ())],
        "design": {**found["design"], "not_finite": settings.not_finite},
        **(
            predicted.compared(experiment, found["cells"]) if predicted.foreseen(experiment) else {}
        ),
        "throughput": throughput,
    }
    return Outcome(result, summary(result), files)


def plan(config: Config, work: Work) -> object:
    """What `run` would do, without doing it: trials, passes, and the time they may take."""
    campaign = _campaign(prepare(config, work))
    experiment, target = campaign.experiment, config.campaign.targets[0]
    known = predicted.foreseen(experiment) and target != "link"
    worst = predicted.by_layer(experiment, target) if known else []
    return shown(_planned(campaign), campaign.evaluator, worst)


def _campaign(experiment: Experiment) -> Campaign:
    graph, settings = experiment.quantized.graph, experiment.config.campaign
    struck = np.flatnonzero(layer_mask(experiment.faults, graph))
    if settings.mapping and len(settings.mapping) != len(graph.layers):
        raise InputError(
            f"campaign.mapping: {len(settings.mapping)} devices for {len(graph.layers)} layers; "
            "give one for each"
        )
    crossing = _crossing(experiment) if "link" in settings.targets else ()
    return Campaign(experiment, experiment.struck_images, tuple(struck.tolist()), crossing)


def _crossing(experiment: Experiment) -> tuple[int, ...]:
    """Layers that read what another device has made, under `campaign.mapping`."""
    graph, given = experiment.quantized.graph, experiment.config.campaign.mapping
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


def _design(campaign: Campaign) -> Callable[[], Found]:
    """What the design is to do, checked but not yet begun."""
    experiment, settings = campaign.experiment, campaign.config.campaign
    if settings.design == "bernoulli":
        wanted = _cells(campaign)
        return lambda: Found(campaign_masks.found(experiment, campaign.evaluator, wanted))
    if settings.design == "listed" and settings.list:
        listed = campaign_list.read(experiment)
        return lambda: _struck(campaign, listed)
    if settings.design == "listed":
        sites = _sites(experiment)
        return lambda: Found(campaign_listed.found(experiment, campaign.evaluator, sites))
    walk = _walk(campaign)

    def single() -> Found:
        with experiment.work.progress.task("Striking", int(walk.most().sum())) as task:
            walk.run(task.advance)
        return Found(campaign_single.found(experiment, walk))

    return single


def _struck(campaign: Campaign, faults: FaultList) -> Found:
    """A file's faults: struck, compared with what the file says of them, and written again."""
    struck = campaign_list.strike(campaign.experiment, campaign.evaluator, faults)
    record, more = campaign_list.found(campaign.experiment, struck), {}
    if faults.counts is not None:
        confidence = campaign.config.campaign.confidence
        record |= {"published": published.compared(struck, faults.counts, confidence)}
        more = published.columns(struck, faults.counts)
    return Found(record, {campaign_list.FILE: campaign_list.table(struck, more)})


def _cells(campaign: Campaign) -> list[masks.Cell]:
    settings = campaign.config.campaign
    return masks.cells(
        campaign.experiment.faults,
        by=settings.strata,
        targets=settings.targets,
        layers=campaign.layers,
        crossing=campaign.crossing,
        rates=settings.rates,
        network=campaign.experiment.quantized.layers,
    )


def _walk(campaign: Campaign) -> Walk:
    config, quantized = campaign.config, campaign.experiment.quantized
    settings, faults = config.campaign, config.faults
    if faults.scope == "image" and "weights" in settings.targets:
        raise InputError(
            "faults.scope: single faults of weights stay for all images of a trial; use "
            "campaign.design = bernoulli for weights struck anew for every image"
        )
    lengths = {"burst": faults.burst, "lost": faults.packet}
    made = strata.strata(
        quantized,
        strata.Kind(faults.kind, lengths.get(faults.kind, 1), settings.count),
        by=settings.strata,
        targets=settings.targets,
        layers=campaign.layers,
        bits=sorted(settings.bits) or range(quantized.format.width),
        crossing=campaign.crossing,
        shared=faults.shared,
    )
    rules = Rules(
        settings.design,
        settings.interval,
        settings.margin,
        settings.confidence,
        settings.trials,
        settings.sequential,
    )
    reference = campaign.evaluator.reference
    count = campaign.evaluator.count
    tally = Tally(len(made), count, reference.argmax(axis=1), reference.shape[1])
    own = faults.scope in ("", "image") and settings.design != "exhaustive"
    images = count if own else 1
    return Walk(
        campaign.evaluator,
        made,
        rules,
        tally,
        seed=config.run.seed,
        images=images,
        shared=faults.shared,
    )


def _planned(campaign: Campaign) -> Plan:
    settings, images = campaign.config.campaign, campaign.evaluator.count
    if settings.design == "bernoulli":
        trials = masks.asked(campaign.experiment.faults, settings.trials)
        wanted, at = _cells(campaign), masks.looks(trials)
        return Plan(len(wanted), len(wanted) * at[0], len(wanted) * at[-1], images)
    if settings.design == "listed":
        count = len((campaign_list.read if settings.list else _sites)(campaign.experiment))
        return Plan(count, count, count, images)
    walk = _walk(campaign)
    return Plan(len(walk.strata), int(walk.least().sum()), int(walk.most().sum()), images)


def _sites(experiment: Experiment) -> dict[str, Fault]:
    return campaign_listed.faults(experiment, experiment.config.campaign.sites)


def _timed(campaign: Campaign, design: Callable[[], Found]) -> tuple[Found, Record]:
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
    rate: dict[str, Any] = {"inferences_per_second": passes / seconds}
    return found, rate | {"clean_inferences_per_second": clean, "passes": int(passes)}
