"""Job `export`: one ONNX file per device, for a mapping of layers or a placement of neurons."""

from collections.abc import Iterable

from afpjax.config.config import Config
from afpjax.config.work import Work
from afpjax.deploy.local_runner import LocalRunner, onnxruntime_installed
from afpjax.deploy.manifest import Manifest
from afpjax.deploy.onnx.export import ExportedFiles, ExportInfo, export_mapping, export_placement
from afpjax.experiment import Experiment, prepare
from afpjax.inputs.notes import Note
from afpjax.jobs.export.agreement import agreement, losses
from afpjax.jobs.export.choice import Choice, choice, device_names, kind_of
from afpjax.jobs.export.result import (
    DataName,
    ExportResult,
    FileResult,
    FormatResult,
    NeuronsHeld,
    SendResult,
    TaskResult,
)
from afpjax.jobs.export.view import view
from afpjax.jobs.shared import plans, records, scoring
from afpjax.jobs.shared.outcome import Outcome
from afpjax.jobs.shared.result import NoteResult
from afpjax.neurons.placement import Placement

_UNCHECKED = Note(
    "unchecked",
    "The exported files were not compared with afpjax's own answers: onnxruntime, which runs them, "
    "is not installed. Install it (pip install 'afpjax[serve]') and export again to have them "
    "checked.",
)


def plan(config: Config, work: Work) -> object:
    """What finds the mapping or the placement, and the check of the files."""
    experiment = prepare(config, work, batch=config.export.batch)
    images, held = plans.counts(experiment)
    steps = steps_before(experiment)
    if onnxruntime_installed():
        checked = min(config.export.images, images + held)
        lost = len(device_names(config)) * held * (kind_of(config) == "placement")
        steps += [plans.Step("checking the files", 2 * (checked + lost))]
    return plans.shown(experiment, steps)


def steps_before(experiment: Experiment) -> list[plans.Step]:
    """The steps that lead to what is exported."""
    config, export = experiment.config, experiment.config.export
    if export.source:
        return []
    if export.kind == "placement":
        return [] if config.distribute.importance else plans.scoring(experiment)
    if export.mapping or len(experiment.platform.names) == 1:
        return []
    _, held = plans.counts(experiment)
    front = config.search.population * config.search.final_trials * held
    return [*plans.search(experiment, 1), plans.Step("measuring the front", front, held)]


def run(config: Config, work: Work) -> Outcome:
    """The files, and how well what onnxruntime makes of them agrees with afpjax's own logits."""
    experiment = prepare(config, work, batch=config.export.batch)
    chosen = choice(experiment)
    exported = _exported(experiment, chosen)
    manifest, where = exported.manifest, chosen.where
    notes = records.notes(experiment)
    agreed = lost = None
    if onnxruntime_installed():
        runner = LocalRunner(manifest, exported.files)
        agreed = agreement(experiment, runner)
        if isinstance(where, Placement):
            lost = losses(experiment, where, runner)
    else:
        notes.append(NoteResult.of(_UNCHECKED))
    placed = isinstance(where, Placement)
    result = ExportResult(
        model=records.model(experiment),
        notes=notes,
        data=DataName(experiment.data_name),
        format=FormatResult(config.format.kind, experiment.format.width),
        kind=manifest.kind,
        method=chosen.method,
        source=chosen.source,
        devices=list(chosen.devices),
        batch=manifest.batch,
        parts=_parts(exported),
        mapping=None if placed else records.as_list(where),
        placement=_held(experiment, where) if placed else None,
        substitute=config.distribute.substitute if placed else None,
        tasks=[TaskResult(t.task, t.device, t.inputs, t.outputs) for t in manifest.tasks],
        sends=[SendResult(s.tensor, s.source, s.target, s.bytes) for s in manifest.sends],
        agreement=agreed,
        lost=lost,
        stability=[chosen.stability] if chosen.stability else None,
    )
    return Outcome(result, files=exported.files, view=view(result))


def _exported(experiment: Experiment, chosen: Choice) -> ExportedFiles:
    config, quantized = experiment.config, experiment.quantized
    info = ExportInfo(config.model.name, experiment.mean, experiment.std, chosen.method)
    batch = config.export.batch
    if not isinstance(chosen.where, Placement):
        return export_mapping(quantized, chosen.where, chosen.devices, info, batch=batch)
    values = scoring.substitutes_of(experiment, config.distribute.substitute)
    return export_placement(quantized, chosen.where, values, chosen.devices, info, batch=batch)


def _parts(exported: ExportedFiles) -> list[FileResult]:
    """Every device's file, with what enters and leaves it."""
    manifest, files = exported.manifest, []
    for device in manifest.devices:
        own = [task for task in manifest.tasks if task.device == device.device]
        made = dict.fromkeys(name for task in own for name in task.outputs)
        read = dict.fromkeys(name for task in own for name in task.inputs if name not in made)
        files.append(
            FileResult(
                device=device.device,
                file=device.file,
                inputs=list(read),
                outputs=_leaving(manifest, device.device, made),
                sha256=device.sha256,
                layers=len(dict.fromkeys(name for task in own for name in task.layers)),
                tasks=len(own),
                file_bytes=len(exported.files[device.file]),
                weight_bytes=device.weight_bytes,
                activation_bytes=device.activation_bytes,
            )
        )
    return files


def _leaving(manifest: Manifest, device: str, made: Iterable[str]) -> list[str]:
    """What other devices, or whoever wants the logits, need of what a device makes."""
    wanted = {name for task in manifest.tasks if task.device != device for name in task.inputs}
    pieces = {name for layer in manifest.pieces.values() for name in layer.made}
    return [name for name in made if name in wanted | pieces | {manifest.output}]


def _held(experiment: Experiment, placement: Placement) -> list[NeuronsHeld]:
    """How many neurons (coded sums too) of each layer every device computes."""
    return [
        NeuronsHeld(layer.name, layer.neurons, records.as_list(loads))
        for layer, loads in zip(experiment.graph.layers, placement.loads(), strict=True)
    ]
