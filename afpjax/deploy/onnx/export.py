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
from afpjax.deploy.manifest import NAME, DeviceFile, ImageFormat, Manifest, ModelInfo, sha256
from afpjax.deploy.onnx.network import ExportableNetwork
from afpjax.deploy.onnx.splits import NetworkSplit, split_by_layer, split_by_neuron
from afpjax.inputs.errors import InputError
from afpjax.network.quantized import Quantized
from afpjax.neurons.placement import Placement

MAPPING = "mapping.json"
_MOST_BYTES = 2**31 - 2**24  # protobuf's limit, with room for the graph itself


class ExportInfo(NamedTuple):
    """What is exported, beside the network: its name, how its images are normalised, and how the
    choice was found."""

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    method: str


class ExportedFiles(NamedTuple):
    """An export: its manifest, and its files by name, those of devices first."""

    manifest: Manifest
    files: dict[str, bytes]


def export_mapping(
    quantized: Quantized,
    mapping: Int[np.ndarray, " L"],
    devices: Sequence[str],
    info: ExportInfo,
    *,
    batch: int = 1,
) -> ExportedFiles:
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
    network = ExportableNetwork(quantized, batch)
    return _exported(network, split_by_layer(network, mapping, devices), "mapping", info)


def export_placement(
    quantized: Quantized,
    placement: Placement,
    substitutes: Sequence[Float[np.ndarray, "_"]],
    devices: Sequence[str],
    info: ExportInfo,
    *,
    batch: int = 1,
) -> ExportedFiles:
    """Device d computes the neurons that `placement` has it hold; `substitutes` by layer.

    Raises `InputError` for a placement of another network, and for an operation without an ONNX
    counterpart.
    """
    sizes = tuple(
        (name, held.shape[1]) for name, held in zip(placement.layers, placement.holds, strict=True)
    )
    if sizes != tuple((layer.name, layer.neurons) for layer in quantized.layers):
        raise InputError("placement: of another network; export it with its own")
    network = ExportableNetwork(quantized, batch)
    split = split_by_neuron(network, placement, substitutes, devices)
    return _exported(network, split, "placement", info)


def _exported(
    network: ExportableNetwork, split: NetworkSplit, kind: str, info: ExportInfo
) -> ExportedFiles:
    files, names = dict[str, bytes](), file_names(list(split.graphs))
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
        files[names[device]] = content = model.SerializeToString(deterministic=True)
        devices.append(
            DeviceFile(
                device=device,
                file=names[device],
                sha256=sha256(content),
                weight_bytes=weights,
                activation_bytes=split.activation_bytes(device),
            )
        )
        nodes[f"{device}_cpu0"] = [node.name for node in model.graph.node]
    image = network.program.image
    shape, dtype = network.shapes[image]
    manifest = Manifest(
        afpjax=__version__,
        kind=kind,  # pyright: ignore[reportArgumentType]
        method=info.method,
        model=ModelInfo(name=info.name, digest=network.digest, layers=network.program.graph.names),
        format=asdict(network.quantized.format),
        image=ImageFormat(
            tensor=network.names[image],
            shape=shape,
            dtype=str(dtype),
            mean=info.mean,
            std=info.std,
        ),
        output=network.names[network.output],
        batch=network.batch,
        devices=tuple(devices),
        tensors=dict(split.tensors),
        tasks=split.tasks,
        pieces=dict(split.pieces),
        sends=split.sends,
    )
    files[NAME] = manifest.to_json().encode()
    files[MAPPING] = (json.dumps(nodes, indent=1) + "\n").encode()
    return ExportedFiles(manifest, files)


def file_names(devices: Sequence[str]) -> dict[str, str]:
    """A file for each device, of letters that every system takes, no two alike."""
    names = dict[str, str]()
    for device in devices:
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", device).strip(".-") or "device"
        number, name = 2, safe
        while name.lower() in {other.lower() for other in names.values()}:
            name, number = f"{safe}-{number}", number + 1
        names[device] = name
    return {device: f"{name}.onnx" for device, name in names.items()}
