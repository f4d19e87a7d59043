"""Job `serve`: an export run for real, every device a process, which may be killed.

Requests are the experiment's held-out images. What is measured stands beside what afpjax predicts
for exactly the devices that were left.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from afpjax.config.config import Config, load
from afpjax.config.work import Work
from afpjax.deploy.manifest import Manifest, read_manifest
from afpjax.deploy.onnx.network import ExportableNetwork
from afpjax.deploy.service.cleanup import scratch_folder
from afpjax.deploy.service.http_server import HttpServer
from afpjax.deploy.service.kills import Kill, planned_kills
from afpjax.deploy.service.plan import ServedExport
from afpjax.deploy.service.ray_cluster import ray_cluster, require_ray
from afpjax.deploy.service.service import Service, ServiceLimits
from afpjax.experiment import Experiment, prepare
from afpjax.hardware.board import load_board
from afpjax.hardware.platform import load_platform
from afpjax.inputs.errors import InputError
from afpjax.jobs.export import run as export
from afpjax.jobs.export.choice import device_names
from afpjax.jobs.export.run import steps_before
from afpjax.jobs.serve import measured, predicted
from afpjax.jobs.serve.replanning import replanner
from afpjax.jobs.serve.result import ServedFiles, ServedImages, ServeResult
from afpjax.jobs.serve.view import view
from afpjax.jobs.shared import plans, records
from afpjax.jobs.shared.outcome import Outcome

_GRACE_S = 5.0  # that a client over HTTP waits longer than an image may take


def plan(config: Config, work: Work) -> object:
    """The export where there is none yet, the images that are served, and what is predicted."""
    require_ray()
    serve, folder = config.serve, Path(config.serve.export)
    exported = _exported_experiment(config, folder)
    names = _expected_devices(exported, folder)
    planned_kills(serve.kill, serve.kills, names, serve.requests, config.run.seed)
    experiment = prepare(exported, work, batch=exported.export.batch)
    images, held = plans.counts(experiment)
    online = exported.online
    searched = online.population * (online.generations + 1) * exported.faults.trials * images
    steps = [
        *([] if serve.export else steps_before(experiment)),
        plans.Step("images asked for", serve.requests, 0),
        plans.Step("searching for a loss", 2 * searched, 0),
        plans.Step("predicting accuracy", (1 + serve.kills + len(serve.kill)) * held, held),
    ]
    return plans.shown(experiment, steps, f"Devices: {', '.join(names)}.")


def run(config: Config, work: Work) -> Outcome:
    """Serve the images, and predict afterwards what was measured."""
    require_ray()
    serve, seed, setting = config.serve, config.run.seed, "serve.memory_mb"
    with ExitStack() as stack:
        http = None
        if serve.port:  # taken before anything starts
            http = stack.enter_context(HttpServer(serve.port, serve.deadline_ms / 1e3 + _GRACE_S))
        folder = Path(serve.export or stack.enter_context(scratch_folder()))
        exported = _exported_experiment(config, folder)
        # What cannot be is refused before anything is exported.
        expected = _expected_devices(exported, folder)
        planned_kills(serve.kill, serve.kills, expected, serve.requests, seed)
        if not serve.export:
            outcome = export.run(replace(exported, run=replace(exported.run, job="export")), work)
            for name, content in outcome.files.items():
                (folder / name).write_bytes(content)
        manifest = read_manifest(folder)
        experiment = prepare(exported, work, batch=exported.export.batch)
        names = _devices(experiment, manifest)
        limits = _memory_limits(experiment, manifest, names)
        files = ServedExport.of_folder(manifest, folder, names).check_memory(limits, setting)
        kills = planned_kills(serve.kill, serve.kills, names, serve.requests, seed)
        replan = None
        if manifest.kind == "mapping":
            replan = replanner(experiment, manifest, limits, setting)
            with work.progress.task("Preparing for a loss", 1) as task:
                replan.prepare()
                task.advance()
        # Which held-out image each request is: all of them once, in random order, then again.
        order = np.random.default_rng([seed, 0x57EA]).permutation(len(experiment.held.labels))
        images = np.resize(order, serve.requests)
        with (
            ray_cluster(config.run.cluster) as ray,
            Service(ray, files, _limits(config), replan) as service,
        ):
            _serve(service, experiment, config, images, kills, http)
    result = _result(service, experiment, files, limits, images)
    return Outcome(result, view=view(result))


def _exported_experiment(config: Config, folder: Path) -> Config:
    """The experiment that was exported, evaluated in this process."""
    exported = config
    if config.serve.export:
        if not (folder / "config.toml").is_file():
            raise InputError(
                f"serve.export: {folder} has no config.toml; name the run folder of a job export"
            )
        exported = load(folder / "config.toml", named=config.model.name)
    return replace(exported, serve=config.serve, run=replace(exported.run, cluster=""))


def _expected_devices(config: Config, folder: Path) -> tuple[str, ...]:
    """All devices of the service, as far as they are known before its network is."""
    if not config.serve.export:
        return device_names(config)
    manifest = read_manifest(folder)
    if manifest.kind == "placement":
        return manifest.names
    return load_platform(config.platform.devices, config.platform.link).names


def _devices(experiment: Experiment, manifest: Manifest) -> tuple[str, ...]:
    """All devices of the service: a mapping may leave some of the platform's without work."""
    if manifest.model.digest != ExportableNetwork(experiment.quantized, manifest.batch).digest:
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


def _memory_limits(
    experiment: Experiment, manifest: Manifest, names: tuple[str, ...]
) -> Mapping[str, float]:
    """Bytes that each device's part may take."""
    config = experiment.config
    if config.serve.memory_mb:
        return dict.fromkeys(names, float(config.serve.memory_mb) * 1e6)
    if manifest.kind == "placement":
        return dict.fromkeys(names, load_board(config.distribute.board).memory_mb * 1e6)
    return {device.name: float(device.memory_bytes) for device in experiment.platform.devices}


def _limits(config: Config) -> ServiceLimits:
    serve = config.serve
    times = (ms / 1e3 for ms in (serve.heartbeat_ms, serve.timeout_ms, serve.deadline_ms))
    return ServiceLimits(serve.in_flight, *times)


def _serve(
    service: Service,
    experiment: Experiment,
    config: Config,
    images: Int[np.ndarray, " N"],
    kills: tuple[Kill, ...],
    http: HttpServer | None,
) -> None:
    """Ask for the held-out images of these numbers, in this order."""
    service.start()
    if http is not None:
        http.start(experiment.held.images.shape[1:], service.ask, service.status)
    stream = (experiment.held.images[image] for image in images)
    with experiment.work.progress.task("Serving", config.serve.requests) as task:
        listen_s = config.serve.listen_s if http else None
        service.run(stream, kills, listen_s=listen_s, progress=task.advance)


def _result(
    service: Service,
    experiment: Experiment,
    served: ServedExport,
    limits: Mapping[str, float],
    images: Int[np.ndarray, " N"],
) -> ServeResult:
    manifest, labels, requests = served.manifest, experiment.held.labels[images], service.queue.all
    stream = [request for request in requests if request.index >= 0]
    answers = measured.answered(stream)
    if not answers:
        reasons = sorted({request.reason for request in requests})
        raise InputError(f"serve: none of {len(images)} images was answered: {', '.join(reasons)}")
    lost = sorted({request.lost for request in answers}, key=lambda names: (len(names), names))
    right = predicted.right(experiment, manifest, lost)
    by_lost = predicted.by_lost(answers, images.tolist(), right, served.names, labels)
    held = len(experiment.held.labels)
    return ServeResult(
        model=records.model(experiment),
        notes=records.notes(experiment),
        data=ServedImages(experiment.data_name, held),
        export=ServedFiles(
            kind=manifest.kind,
            method=manifest.method,
            devices=len(manifest.devices),
            tasks=len(manifest.tasks),
            batch=manifest.batch,
            digest=manifest.model.digest,
            format=" ".join(str(value) for value in manifest.format.values()),
        ),
        requests=len(stream),
        answered=len(answers),
        refused=len(stream) - len(answers),
        fps=len(answers) / measured.seconds(stream),
        latency_ms=measured.percentiles(answers),
        accuracy=measured.accuracy(answers, labels),
        refusals=measured.refusals(stream),
        http=measured.over_http([request for request in requests if request.index < 0]),
        refused_because=service.deployment.details or None,
        predicted=predicted.overall(by_lost, held),
        agreement=round(sum(row.agreement * row.answered for row in by_lost)) / len(answers),
        by_lost=by_lost,
        predicted_cost=predicted.speed(experiment, manifest),
        devices=measured.devices(service, served.used_bytes(), limits),
        throughput=measured.throughput(service, stream),
    )
