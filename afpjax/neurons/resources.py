"""Memory, energy and frames per second of a network whose layers are spread over edge boards.

A device holds the weights of the neurons it computes. For every layer it reads the whole input,
unfolded into the patches of a matrix product whichever share of the neurons is its own, computes
its neurons, and sends them to those that lack them (all-gather). Two batches are under way at a
time: one is computed while the wires carry the other's outputs.

Table II of RobustDiCE (Guo et al.) is what the shipped board is calibrated to, and checked against.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer

from afpjax.hardware.board import Board
from afpjax.hardware.platform import Link
from afpjax.inputs import checks
from afpjax.inputs.errors import InputError
from afpjax.network.layers import Layer, LayerGraph

MB = 1e6


@dataclass(frozen=True, eq=False)
class Resources:
    """What a distributed network costs; memory in MB (1e6 bytes), energy in J per image.

    `busy_ms` is what each device computes for one batch. `step_ms` is the time of a batch in a
    steady stream: `compute_ms` (the slowest device of each layer, the images' reading and the
    messages included) or `link_ms` (the wires), whichever is longer.
    """

    memory_mb: Float[np.ndarray, "D"]
    energy_j: Float[np.ndarray, "D"]
    busy_ms: Float[np.ndarray, "D"]
    fps: float
    compute_ms: float
    link_ms: float

    @property
    def peak_memory_mb(self) -> float:
        return float(self.memory_mb.max())

    @property
    def peak_energy_j(self) -> float:
        return float(self.energy_j.max())

    @property
    def step_ms(self) -> float:
        return max(self.compute_ms, self.link_ms)


class _Work(NamedTuple):
    """Everything of the layers that the equations need, as columns; bytes are those of a batch."""

    share: Float[np.ndarray, "L D"]  # of a layer's neurons
    macs: Float[np.ndarray, "L 1"]
    weights: Float[np.ndarray, "L 1"]
    inputs: Float[np.ndarray, "L 1"]
    patches: Float[np.ndarray, "L 1"]  # elements of one group's unfolded input
    unfolded: Float[np.ndarray, "L 1"]  # elements of all groups'
    outputs: Float[np.ndarray, "L 1"]
    sent: Float[np.ndarray, "L 1"]  # what other layers read of it, pooled where a pooling follows


class _Gathers(NamedTuple):
    """What the exchange of a batch's outputs costs."""

    link_ms: float
    link_mj: Float[np.ndarray, "D"]
    messages: int  # that each device has to deal with


def resources(
    graph: LayerGraph,
    loads: Integer[np.ndarray, "L D"],
    board: Board,
    link: Link,
    *,
    batch: int = 1,
    images: int = 1000,
    weight_bytes: int = 2,
    activation_bytes: int = 2,
    idle: Collection[int] = (),
) -> Resources:
    """Memory and energy of each of D equal boards, and the frames per second of all together.

    `loads` counts the neurons that a device computes of each layer, as `Placement.loads` does.
    `images` are streamed in batches of `batch`; every device has them, and the logits stay where
    they are made. Values that wait for a join are not counted. The spare of CDC works along, and
    receives as many as it does not compute: a sum, and all slices but one, give that one. Devices
    in `idle` keep their weights and draw `base_w`, but compute and receive nothing: a lost device,
    or a spare that only steps in. On a shared medium (radio) devices send in turns, through a
    switch they receive at the same time.

    Per layer and device, with its share s of the neurons:
    time = launch + max(s x MACs / peak, (s x weights + inputs + 2 x unfolded + s x outputs) /
    bandwidth), a layer's gather takes as long as the device that lacks most;
    memory = base + all weights + the largest layer's inputs, unfolded, own and gathered outputs;
    energy = base_w x time + compute_w x busy time + the link's for what is received.

    Raises `InputError` for loads that are not of these layers, a batch, a number of images or a
    width below 1, devices that do not exist, and a board whose memory does not suffice.
    """
    checks.whole("batch", batch, 1)
    checks.whole("images", images, 1)
    checks.whole("weight_bytes", weight_bytes, 1)
    checks.whole("activation_bytes", activation_bytes, 1)
    _check_loads(graph, loads)
    active = _active(idle, loads.shape[1])
    work = _work(graph, loads, board, batch, (weight_bytes, activation_bytes))
    memory = _memory_mb(work, active, board)
    if (most := memory.max()) > board.memory_mb:
        raise InputError(
            f"device {memory.argmax()} needs {most:.0f} MB and `{board.name}` has"
            f" {board.memory_mb:.0f}: lower the batch or spread the network further"
        )
    busy = _busy_ms(work, board) * active
    gathers = _gathers(work, active, link)
    compute_ms = batch * board.image_ms + gathers.messages * board.message_ms
    compute_ms += float(busy.max(axis=1).sum())
    steps = -(-images // batch)
    # The longer of the two for every batch; the first has no other to overlap with.
    both = compute_ms, gathers.link_ms
    total_ms = steps * max(both) + min(both)
    own_mj = board.compute_w * busy.sum(axis=0) + gathers.link_mj
    return Resources(
        memory_mb=memory,
        energy_j=(board.base_w * total_ms + steps * own_mj) * 1e-3 / images,
        busy_ms=busy.sum(axis=0),
        fps=1e3 * images / total_ms,
        compute_ms=compute_ms,
        link_ms=gathers.link_ms,
    )


def patches(layer: Layer) -> int:
    """Elements of one group's unfolded input: a row of `fan_in` for every output position.

    A depthwise convolution has none: it is computed where its input lies.
    """
    depthwise = layer.groups > 1 and layer.input_channels == 1
    return 0 if depthwise else layer.fan_in * layer.outputs // layer.neurons


def _work(
    graph: LayerGraph,
    loads: Integer[np.ndarray, "L D"],
    board: Board,
    batch: int,
    widths: tuple[int, int],
) -> _Work:
    layers = graph.layers
    sent = [0] * len(layers)
    for tensor in graph.tensors:
        if tensor.producer >= 0 and tensor.consumers:
            sent[tensor.producer] += tensor.elements
    weight_bytes, activation_bytes = widths
    activations, unfolded = batch * activation_bytes, batch * board.unfolded_bytes

    def column(values: Sequence[int]) -> Float[np.ndarray, "L 1"]:
        return np.array(values, np.float64)[:, None]

    return _Work(
        share=loads / column([layer.neurons for layer in layers]),
        macs=batch * column([layer.macs for layer in layers]),
        weights=weight_bytes * column([layer.weights + layer.biases for layer in layers]),
        inputs=activations * column([layer.inputs for layer in layers]),
        patches=unfolded * column([patches(layer) for layer in layers]),
        unfolded=unfolded * column([patches(layer) * layer.groups for layer in layers]),
        outputs=activations * column([layer.outputs for layer in layers]),
        sent=activations * column(sent),
    )


def _memory_mb(work: _Work, active: Bool[np.ndarray, "D"], board: Board) -> Float[np.ndarray, "D"]:
    """Weights of all layers, and the activations of the layer that has most.

    While a layer is computed, its whole input, the unfolded patches and the device's own outputs
    are in use, and the buffer that the others' outputs arrive in where it lacks some.
    """
    lacking = (work.share < 1) & active
    used = work.inputs + work.patches + work.share * work.outputs + lacking * work.sent
    used = np.where(work.share > 0, used, lacking * work.sent)
    weights = (work.share * work.weights).sum(axis=0)
    return board.base_mb + (weights + used.max(axis=0)) / MB


def _busy_ms(work: _Work, board: Board) -> Float[np.ndarray, "L D"]:
    """The roofline; patches are written once and read once."""
    moved = work.inputs + 2 * work.unfolded + work.share * (work.weights + work.outputs)
    compute = work.share * work.macs / (board.peak_gmac_s * 1e6)
    memory = moved / (board.bandwidth_gb_s * 1e6)
    return np.where(work.share > 0, board.launch_ms + np.maximum(compute, memory), 0.0)


def _gathers(work: _Work, active: Bool[np.ndarray, "D"], link: Link) -> _Gathers:
    """Every device that lacks neurons of a layer that is read receives them from the others."""
    received = np.ceil((1 - work.share) * work.sent * active).astype(np.int64)
    link_ms, link_mj, messages = 0.0, np.zeros(len(active)), 0
    for needed in received[received.any(axis=1)]:
        link_ms += link.transfer_ms(int(needed.sum() if link.shared_medium else needed.max()))
        link_mj += [link.transfer_mj(int(size)) for size in needed]
        messages += int(active.sum()) - 1
    return _Gathers(link_ms, link_mj, messages)


def _check_loads(graph: LayerGraph, loads: Integer[np.ndarray, "L D"]) -> None:
    rows, devices = loads.shape
    if rows != len(graph.layers) or rows == 0 or devices == 0:
        raise InputError(
            f"loads: {rows} x {devices} numbers for {len(graph.layers)} layers; give one for each"
            " layer and device"
        )
    for layer, row in zip(graph.layers, loads, strict=True):
        if row.min() < 0 or row.max() > layer.neurons:
            raise InputError(
                f"loads of layer `{layer.name}`: {row.tolist()}; give 0 to {layer.neurons} neurons"
            )


def _active(idle: Collection[int], devices: int) -> Bool[np.ndarray, "D"]:
    """Which devices are not idle."""
    for device in idle:
        if not 0 <= device < devices:
            raise InputError(f"idle: no device {device}; devices are 0 to {devices - 1}")
    if len(set(idle)) == devices:
        raise InputError("idle: all devices; leave one to compute")
    return ~np.isin(np.arange(devices), list(idle))
