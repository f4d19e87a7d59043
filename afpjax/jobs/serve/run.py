"""Job `serve`: an export run for real, every device a process, which may be killed.

Requests are the experiment's held-out images. What is measured stands beside what afpjax foretells
for exactly the devices that were left.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from afpjax.config.config import Config, load
from afpjax.config.work import Work
from afpjax.deploy.cluster import needed, ray_cluster
from afpjax.deploy.exported import FromManifest
from afpjax.deploy.front import Front
from afpjax.deploy.janitor import scratch_folder
from afpjax.deploy.killer import Kill, planned
from afpjax.deploy.layout import Replan
from afpjax.deploy.manifest import Manifest
from afpjax.deploy.manifest_read import read
from afpjax.deploy.service import Image, Limits, Service
from afpjax.deploy.source import Source
from afpjax.experiment.prepare import Experiment, prepare
from afpjax.hardware.board import load_board
from afpjax.hardware.platform import load_platform
from afpjax.inputs.errors import InputError
from afpjax.jobs import JOBS
from afpjax.jobs.export.choice import device_names
from afpjax.jobs.export.run import found_by
from afpjax.jobs.serve import measured, predicted
from afpjax.jobs.serve.again import replanner
from afpjax.jobs.serve.summary import summary
from afpjax.jobs.shared import plans, records
from afpjax.jobs.shared.outcome import Outcome
from afpjax.jobs.shared.records import Record

_GRACE_S = 5.0  # that a client over HTTP waits longer than an image may take


def plan(config: Config, work: Work) -> object:
    """The export where there is none yet, the images that are served, and what is foretold."""
    needed()
    given, folder = config.serve, Path(config.serve.export)
    theirs = _experiment_of(config, folder)
    names = _expected(theirs, folder)
    planned(given.kill, given.kills, names, given.requests, config.run.seed)
    experiment = prepare(theirs, work)
    images, held = plans.counts(experiment)
    again = theirs.online.population * (theirs.online.generations + 1) * theirs.faults.trials
    steps = [
        *([] if given.export else found_by(experiment)),
        plans.Step("images asked for", given.requests, 0),
        plans.Step("searching for a loss", 2 * again * images, 0),
        plans.Step("foretelling accuracy", (1 + given.kills + len(given.kill)) * held, held),
    ]
    return plans.shown(experiment, steps, f"Devices: {', '.join(names)}.")


def run(config: Config, work: Work) -> Outcome:
    """Serve the images, and foretell afterwards what was measured."""
    needed()
    given = config.serve
    with ExitStack() as stack:
        front = None
        if given.port:  # taken before anything starts
            front = stack.enter_context(Front(given.port, given.deadline_ms / 1e3 + _GRACE_S))
        folder = Path(given.export or stack.enter_context(scratch_folder()))
        theirs = _experiment_of(config, folder)
        planned(
            given.kill, given.kills, _expected(theirs, folder), given.requests, config.run.seed
        )  # what cannot be is refused before anything is exported
        if not given.export:
            _export(theirs, work, folder)
        manifest, experiment = read(folder), prepare(theirs, work)
        names = _names(experiment, manifest)
        limits = _memory(experiment, manifest, names)
        setting = "serve.memory_mb"
        exported = FromManifest.of_folder(manifest, folder, names).check_room(limits, setting)
        kills = planned(given.kill, given.kills, names, given.requests, config.run.seed)
        replan = None
        if manifest.kind == "mapping":
            replan = replanner(experiment, manifest, limits, setting)
            with work.progress.task("Preparing for a loss", 1) as task:
                replan.prepare()
                task.advance()
        places = _order(len(experiment.held.labels), given.requests, config.run.seed)
        with ray_cluster(config.run.cluster) as ray:
            service = _served(ray, exported, experiment, config, front, kills, replan, places)
    result = _result(service, experiment, exported, limits, places)
    return Outcome(result, summary(result))


def _export(config: Config, work: Work, folder: Path) -> None:
    """Job `export`, its files written to a folder."""
    outcome = JOBS["export"](replace(config, run=replace(config.run, job="export")), work)
    for name, content in outcome.files.items():
        (folder / name).write_bytes(content)


def _experiment_of(config: Config, folder: Path) -> Config:
    """The experiment that was exported, evaluated in this process."""
    theirs = config
    if config.serve.export:
        if not (folder / "config.toml").is_file():
            raise InputError(
                f"serve.export: {folder} has no config.toml; name the run folder of a job export"
            )
        theirs = load(folder / "config.toml", named=config.model.name)
    return replace(theirs, serve=config.serve, run=replace(theirs.run, cluster=""))


def _expected(config: Config, folder: Path) -> tuple[str, ...]:
    """All devices of the service, as far as they are known before its network is."""
    manifest = read(folder) if config.serve.export else None
    if manifest is not None and manifest.kind == "placement":
        return manifest.names
    if manifest is not None:
        return load_platform(config.platform.devices, config.platform.link).names
    return device_names(config)


def _names(experiment: Experiment, manifest: Manifest) -> tuple[str, ...]:
    """All devices of the service: a mapping may leave some of the platform's without work."""
    if manifest.model.digest != Source.of(experiment.quantized, manifest.batch).digest:
        raise InputError(
            "serve.export: it is not of the network that its config.toml gives here; bring back "
            "that network's weights, or export again"
        )
    if manifest.kind == "placement":
        return manifest.names
    if missing := set(manifest.names) - set(experiment.platform.names):
        raise InputError(
            f"serve.export: device {min(missing)} is not on its experiment's platform; export again"
        )
    return experiment.platform.names


def _memory(
    experiment: Experiment, manifest: Manifest, names: tuple[str, ...]
) -> Mapping[str, float]:
    """Bytes that each device's part may take."""
    config = experiment.config
    if config.serve.memory_mb:
        return dict.fromkeys(names, config.serve.memory_mb * 1e6)
    if manifest.kind == "placement":
        return dict.fromkeys(names, load_board(config.distribute.board).memory_mb * 1e6)
    return {each.name: float(each.memory_bytes) for each in experiment.platform.devices}


def _order(images: int, requests: int, seed: int) -> Int[np.ndarray, " N"]:
    """Which held-out image each request is: all of them once, in random order, then again."""
    return np.resize(np.random.default_rng([seed, 0x57EA]).permutation(images), requests)


def _served(
    ray: object,
    exported: FromManifest,
    experiment: Experiment,
    config: Config,
    front: Front | None,
    kills: tuple[Kill, ...],
    replan: Replan | None,
    places: Int[np.ndarray, " N"],
) -> Service:
    """The service when all is over: its processes are gone, its ledger is what is left."""
    given = config.serve
    keeps = Limits(
        given.in_flight,
        given.heartbeat_ms / 1e3,
        given.timeout_ms / 1e3,
        given.deadline_ms / 1e3,
    )

    def stream() -> Iterator[Image]:
        yield from (experiment.held.images[place] for place in places)

    with Service(ray, exported, keeps, replan) as service:
        service.start()
        if front is not None:
            front.begin(experiment.held.images.shape[1:], service.ask, service.status)
        with experiment.work.progress.task("Serving", given.requests) as task:
            listen_s = given.listen_s if front else None
            service.run(stream(), kills, listen_s=listen_s, progress=task.advance)
    return service


def _result(
    service: Service,
    experiment: Experiment,
    exported: FromManifest,
    limits: Mapping[str, float],
    places: Int[np.ndarray, " N"],
) -> Record:
    manifest, labels = exported.manifest, experiment.held.labels[places]
    answers = predicted.answered(service.ledger.every)
    if not answers:
        reasons = sorted({each.reason for each in service.ledger.every})
        raise InputError(f"serve: none of {len(places)} images was answered: {', '.join(reasons)}")
    lost = sorted({each.lost for each in answers}, key=lambda each: (len(each), each))
    said = predicted.right(experiment, manifest, lost)
    found = measured.requests(service, labels)
    if service.layout.details:
        found["refused_because"] = service.layout.details
    return {
        "model": records.model(experiment),
        "notes": records.notes(experiment),
        "data": {"name": experiment.config.data.name, "images": len(experiment.held.labels)},
        "export": _about(manifest),
        **found,
        **predicted.accuracy(answers, places.tolist(), said, exported.names, labels),
        "predicted_cost": predicted.speed(experiment, manifest),
        "devices": measured.devices(service, exported.used_bytes(), limits),
        "throughput": measured.throughput(service),
    }


def _about(manifest: Manifest) -> Record:
    """What was served."""
    return {
        "kind": manifest.kind,
        "method": manifest.method,
        "devices": len(manifest.devices),
        "tasks": len(manifest.tasks),
        "batch": manifest.batch,
        "digest": manifest.model.digest,
        "format": " ".join(str(each) for each in manifest.format.values()),
    }
