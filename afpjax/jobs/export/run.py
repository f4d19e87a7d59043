"""Job `export`: one ONNX file per device, for a mapping of layers or a placement of neurons."""

from collections.abc import Iterable

from afpjax.config.config import Config
from afpjax.config.work import Work
from afpjax.deploy.chain import Chain
from afpjax.deploy.export import About, Exported, export_mapping, export_placement
from afpjax.deploy.manifest import Manifest
from afpjax.deploy.part import installed
from afpjax.experiment.prepare import Experiment, prepare
from afpjax.inputs.notes import Note
from afpjax.inputs.notes import records as records_of
from afpjax.jobs.export.agreement import agreement, losses
from afpjax.jobs.export.choice import Choice, choice, device_names, kind_of
from afpjax.jobs.export.summary import summary
from afpjax.jobs.shared import plans, records
from afpjax.jobs.shared.outcome import Outcome
from afpjax.jobs.shared.records import Record
from afpjax.neurons.placement import Placement

_UNCHECKED = Note(
    "unchecked",
    "The exported files were not compared with afpjax's own answers: onnxruntime, which runs them, "
    "is not installed. Install it (pip install 'afpjax[serve]') and export again to have them "
    "checked.",
)


def plan(config: Config, work: Work) -> object:
    """What finds the mapping or the placement, and the check of the files."""
    experiment = prepare(config, work)
    images, held = plans.counts(experiment)
    steps = found_by(experiment)
    if installed():
        checked = min(config.export.images, images + held)
        lost = len(device_names(config)) * held * (kind_of(config) == "placement")
        steps += [plans.Step("checking the files", 2 * (checked + lost))]
    return plans.shown(experiment, steps)


def found_by(experiment: Experiment) -> list[plans.Step]:
    """The steps that lead to what is exported."""
    config, given = experiment.config, experiment.config.export
    if given.source:
        return []
    if given.kind == "placement":
        return [] if config.distribute.importance else plans.scoring(experiment)
    if given.mapping or len(experiment.platform.names) == 1:
        return []
    _, held = plans.counts(experiment)
    front = config.search.population * config.search.final_trials * held
    return [*plans.search(experiment, 1), plans.Step("measuring the front", front, held)]


def run(config: Config, work: Work) -> Outcome:
    """The files, and how well what onnxruntime makes of them agrees with afpjax's own logits."""
    experiment = prepare(config, work)
    chosen = choice(experiment)
    exported = _exported(experiment, chosen)
    manifest = exported.manifest
    result: Record = {
        "model": records.model(experiment),
        "notes": records.notes(experiment) + ([] if installed() else records_of([_UNCHECKED])),
        "data": {"name": config.data.name},
        "format": {"kind": config.format.kind, "bits": experiment.format.width},
        "kind": manifest.kind,
        "method": chosen.method,
        "source": chosen.source,
        "devices": list(chosen.devices),
        "batch": manifest.batch,
        "parts": _parts(exported),
        **_where(experiment, chosen),
        "tasks": [
            {
                "task": t.task,
                "device": t.device,
                "inputs": list(t.inputs),
                "outputs": list(t.outputs),
            }
            for t in manifest.tasks
        ],
        "sends": [
            {"tensor": s.tensor, "from": s.source, "to": s.target, "bytes": s.bytes}
            for s in manifest.sends
        ],
        **_checked(experiment, chosen, exported),
    }
    if chosen.stability:
        result["stability"] = [dict(chosen.stability)]
    return Outcome(result, summary(result), exported.files)


def _checked(experiment: Experiment, chosen: Choice, exported: Exported) -> Record:
    """What onnxruntime makes of the files, where it is installed."""
    if not installed():
        return {}
    chain = Chain(exported.manifest, exported.files)
    found: Record = {"agreement": agreement(experiment, chain)}
    if isinstance(chosen.where, Placement):
        found["lost"] = losses(experiment, chosen.where, chain)
    return found


def _exported(experiment: Experiment, chosen: Choice) -> Exported:
    given, quantized = experiment.config, experiment.quantized
    about = About(given.model.name, experiment.mean, experiment.std, chosen.method)
    batch = given.export.batch
    if not isinstance(chosen.where, Placement):
        return export_mapping(quantized, chosen.where, chosen.devices, about, batch=batch)
    values = experiment.substitutes(given.distribute.substitute)
    return export_placement(quantized, chosen.where, values, chosen.devices, about, batch=batch)


def _parts(exported: Exported) -> list[Record]:
    """Every device's file, with what enters and leaves it."""
    manifest, rows = exported.manifest, []
    for each in manifest.devices:
        own = [task for task in manifest.tasks if task.device == each.device]
        made = dict.fromkeys(name for task in own for name in task.outputs)
        read = dict.fromkeys(name for task in own for name in task.inputs if name not in made)
        rows.append(
            {
                "device": each.device,
                "file": each.file,
                "inputs": list(read),
                "outputs": list(_leaving(manifest, each.device, made)),
                "sha256": each.sha256,
                "layers": len(dict.fromkeys(name for task in own for name in task.layers)),
                "tasks": len(own),
                "file_bytes": len(exported.files[each.file]),
                "weight_bytes": each.weight_bytes,
                "activation_bytes": each.activation_bytes,
            }
        )
    return rows


def _leaving(manifest: Manifest, device: str, made: Iterable[str]) -> list[str]:
    """What other devices, or whoever wants the logits, need of what a device makes."""
    wanted = {name for task in manifest.tasks if task.device != device for name in task.inputs}
    pieces = {name for each in manifest.pieces.values() for name in each.made}
    return [name for name in made if name in wanted | pieces | {manifest.output}]


def _where(experiment: Experiment, chosen: Choice) -> Record:
    """The mapping, or how many neurons (coded sums too) of each layer every device computes."""
    if not isinstance(chosen.where, Placement):
        return {"mapping": records.as_list(chosen.where)}
    rows = [
        {"layer": layer.name, "neurons": layer.neurons, "held": records.as_list(loads)}
        for layer, loads in zip(experiment.graph.layers, chosen.where.loads(), strict=True)
    ]
    return {"placement": rows, "substitute": experiment.config.distribute.substitute}
