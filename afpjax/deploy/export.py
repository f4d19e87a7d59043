"""One ONNX file per device for a mapping or a placement, with a manifest and AutoDiCE's mapping."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import onnx
from jaxtyping import Float, Int

from afpjax import __version__
from afpjax.deploy.by_layer import by_layer
from afpjax.deploy.by_neuron import by_neuron
from afpjax.deploy.manifest import NAME, Device, Image, Manifest, Model, sha256, to_json
from afpjax.deploy.source import Source
from afpjax.deploy.tasks import Split
from afpjax.inputs.errors import InputError
from afpjax.network.program import Value
from afpjax.network.quantized import Quantized
from afpjax.neurons.placement import Placement

MAPPING = "mapping.json"
_MOST_BYTES = 2**31 - 2**24  # protobuf's limit, with room for the graph itself


class About(NamedTuple):
    """What is exported, beside the network: its name, how its images are normalised, and how the
    choice was found."""

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    method: str


class Exported(NamedTuple):
    """An export: its manifest, and its files by name, those of devices first."""

    manifest: Manifest
    files: dict[str, bytes]


def export_mapping(
    quantized: Quantized,
    mapping: Int[np.ndarray, " L"],
    devices: Sequence[str],
    about: About,
    *,
    batch: int = 1,
) -> Exported:
    """Layer l on device `devices[mapping[l]]`, for batches of `batch` images.

    Raises `InputError` for a mapping of another network or platform, and for an operation without
    an ONNX counterpart.
    """
    layers = len(quantized.layers)
    if len(mapping) != layers:
        raise InputError(
            f"export.mapping: {len(mapping)} devices, but the network has {layers} layers"
        )
    unknown = sorted({*mapping.tolist()} - {*range(len(devices))})
    if unknown:
        raise InputError(
            f"export.mapping: no device {unknown[0]}; devices are 0 to {len(devices) - 1}"
        )
    source = Source.of(quantized, batch)
    return _exported(source, by_layer(source, mapping, devices), "mapping", about)


def export_placement(
    quantized: Quantized,
    placement: Placement,
    substitutes: Sequence[Float[np.ndarray, "_"]],
    devices: Sequence[str],
    about: About,
    *,
    batch: int = 1,
) -> Exported:
    """Device d computes the neurons that `placement` has it hold; `substitutes` by layer.

    Raises `InputError` for a placement of another network, and for an operation without an ONNX
    counterpart.
    """
    sizes = tuple(
        (name, held.shape[1]) for name, held in zip(placement.layers, placement.holds, strict=True)
    )
    if sizes != tuple((layer.name, layer.neurons) for layer in quantized.layers):
        raise InputError("placement: of another network; export it with its own")
    source = Source.of(quantized, batch)
    split = by_neuron(source, placement, substitutes, devices)
    return _exported(source, split, "placement", about)


def _exported(source: Source, split: Split, kind: str, about: About) -> Exported:
    names = file_names(list(split.graphs))
    files: dict[str, bytes] = {}
    devices, nodes = [], {}
    for device, graph in split.graphs.items():
        model = graph.model(split.outputs(device), device)
        weights = sum(len(array.raw_data) for array in model.graph.initializer)
        if weights > _MOST_BYTES:
            raise InputError(
                f"export: {device} has {weights / 1e9:.1f} GB of weights, and an ONNX file holds "
                "no more than 2; share the layers out over more devices"
            )
        onnx.checker.check_model(model, full_check=True)
        content = model.SerializeToString(deterministic=True)
        files[names[device]] = content
        held = split.activation_bytes(device)
        devices.append(Device(device, names[device], sha256(content), weights, held))
        nodes[f"{device}_cpu0"] = [node.name for node in model.graph.node]
    manifest = _manifest(source, split, kind, about, devices)
    files[NAME] = to_json(manifest).encode()
    files[MAPPING] = (json.dumps(nodes, indent=1) + "\n").encode()
    return Exported(manifest, files)


def _manifest(
    source: Source, split: Split, kind: str, about: About, devices: list[Device]
) -> Manifest:
    program = source.program
    image = source.names[program.image]
    shape, dtype = source.shapes[program.image]
    assert isinstance(program.output, Value), "a network's logits depend on the image"
    return Manifest(
        afpjax=__version__,
        kind=kind,
        method=about.method,
        model=Model(about.name, source.digest, program.graph.names),
        format=asdict(source.quantized.format),
        image=Image(image, shape, str(dtype), about.mean, about.std),
        output=source.names[program.output],
        batch=source.batch,
        devices=tuple(devices),
        tensors=split.tensors,
        tasks=split.tasks,
        pieces=split.pieces,
        sends=split.sends,
    )


def file_names(devices: Sequence[str]) -> dict[str, str]:
    """A file for each device, of letters that every system takes, no two alike."""
    names: dict[str, str] = {}
    for device in devices:
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", device).strip(".-") or "device"
        number, name = 2, safe
        while name.lower() in {each.lower() for each in names.values()}:
            name, number = f"{safe}-{number}", number + 1
        names[device] = name
    return {device: f"{name}.onnx" for device, name in names.items()}
