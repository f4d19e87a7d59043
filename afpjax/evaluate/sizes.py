"""How much one call does: the one place for what was measured about it, by backend.

On a CPU (two cores of an Intel Xeon, 2 MiB of second-level cache each) a pass is fastest while the
largest value of a call fits there, and slow where a call has less than about 0.2 ms of arithmetic:
64 images of 8 x 8 x 32 numbers in calls of their own take 0.52 ms, in one loop over a table 0.55
(its values have left the cache); 16 images 0.16 and 0.12 ms; one image 0.048 and 0.013 ms. So small
values go into tables, and large ones do not. Where no kernel is faulty (single weights are
exchanged in the sums), calls of few images run in tiles of nodes that share a kernel: single faults
of one image each take 0.29 of the CPU time for the digits network, 0.6 for ResNet-18 at 32 x 32 and
0.17 for AlexNet, whose dense layers read each kernel once for 16 images. An accelerator has nothing
to do for 10 us with each call, and its memory is as fast for large tables as for small ones: calls
as large as memory allows.
"""

from typing import NamedTuple

import jax

from afpjax.evaluate.words import CallSizes
from afpjax.network import compiler
from afpjax.network.layers import LayerGraph


class Backend(NamedTuple):
    """What one call should do on a kind of device; bytes are those of a network's largest value."""

    call_bytes: int
    least_images: int
    most_images: int
    table_bytes: int  # of a table at most, and of all faulty kernels of a chunk eight times that
    tile: int  # nodes that share a kernel and run at once, at most
    shared_tile: int  # the same where no kernel is faulty
    single_bytes: int  # a node with at least so many runs in a call of its own
    rows: int  # of a chunk at most
    threads: int  # of the host, for each device; 0 for one on each core
    kernel_bytes: int  # of faulty kernels that are made in one step; one at least
    # Calls that score neurons: bytes of their largest value, images, neurons left out at once.
    scoring_bytes: int
    scoring_images: int
    scoring_neurons: int


CPU = Backend(
    call_bytes=2**21,
    least_images=64,
    most_images=256,
    table_bytes=2**23,
    tile=1,
    shared_tile=16,
    single_bytes=2**19,
    rows=64,
    threads=0,
    kernel_bytes=0,
    scoring_bytes=2**26,
    scoring_images=32,
    scoring_neurons=64,
)
#: By its figures, and by what its compiler says (`tests/h100.sh`): not measured yet.
ACCELERATOR = Backend(
    call_bytes=2**28,
    least_images=64,
    most_images=2**14,
    table_bytes=2**33,
    tile=2**14,
    shared_tile=2**14,
    single_bytes=2**40,
    rows=1024,
    threads=2,
    kernel_bytes=2**26,
    scoring_bytes=2**30,
    scoring_images=256,
    scoring_neurons=2**10,
)
_FEW = 8  # rows that are not worth a table


def backend() -> Backend:
    """Of this process's devices."""
    return CPU if jax.default_backend() == "cpu" else ACCELERATOR


def threads(devices: int) -> int:
    """How many units run at once."""
    own = backend().threads
    return own * devices if own else max(devices, compiler.workers())


def value_bytes(graph: LayerGraph) -> int:
    """Of the largest value of one image that a layer reads or makes, float32."""
    return 4 * max(max(layer.inputs, layer.outputs) for layer in graph.layers)


def choose(
    graph: LayerGraph, images: int, *, rows: int, room: int, alone: bool, kernels: int
) -> CallSizes:
    """Sizes of calls for so many images and at most so many rows, within `room` bytes.

    `alone`: a tile has one node, so that what it gives does not depend on what else is asked.
    `kernels`: bytes of all kernels of the network, 0 where none is faulty.
    """
    own, largest = backend(), value_bytes(graph)
    fitting = min(max(power(own.call_bytes // largest), own.least_images), own.most_images)
    block = min(images, fitting)
    value = block * largest
    # At a stage there are its own table, and those of the stages that it or a later one reads.
    table = own.table_bytes // value
    if kernels:
        table = min(table, 8 * own.table_bytes // kernels)
    fits = min(table, room // (4 * value + kernels), own.rows, rows)
    slots = power(fits) if value < own.single_bytes and fits >= _FEW else 1
    if slots == 1:
        return CallSizes(block, 1, 1, 1)
    tile = own.tile if kernels else own.shared_tile
    fill = min(own.call_bytes // value, own.most_images // block, tile, slots)
    nodes = 1 if alone else power(fill)
    return CallSizes(block, slots, slots if nodes == 1 else 2 * slots, nodes, own.kernel_bytes)


def power(number: int) -> int:
    """The largest power of two that is no larger; 1 for less."""
    return 1 << (max(1, number).bit_length() - 1)


def kernel_bytes(graph: LayerGraph) -> int:
    """Of one faulty kernel of every layer."""
    return 4 * sum(layer.weights for layer in graph.layers)
