"""What the engine's programs would launch on an H100, compiled for one; `tests/h100.sh` runs it.

Skipped where JAX has no CUDA compiler. The networks are the default experiment's (`digits`: a
ResNet-18 of a quarter of the channels) and CIFAR-10's ResNet-20, with random weights.
"""

from dataclasses import replace
from functools import lru_cache, partial
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.evaluate import programs, sizes
from afpjax.evaluate.metric import RIGHT
from afpjax.faults.model import FaultModel
from afpjax.faults.spec import FaultSpec
from afpjax.models import zoo
from afpjax.network import compiler
from afpjax.network.fixed_point import QFormat
from afpjax.network.quantized import encoded, quantize
from afpjax.network.trace import trace

from . import h100

#: Bits, units, and the most launches of a stage's call, those of a tile counted once. Five of them
#: are the work: the tile's streams, its kernel, its faulty codes, the product (two of 16 bits),
#: what follows it into the table. The others take microseconds: the loop's counter, its start and
#: its condition; the tile's words, the counters of an image, two scalars that follow from steps; a
#: padded copy where strides leave out a border.
FORMATS = {
    "16-bfloat16": (16, "bfloat16", 14),
    "8-bfloat16": (8, "bfloat16", 12),
    "8-int8": (8, "int8", 12),
}
ROWS = 1024
IMAGES = {"digits": 797, "resnet20": 1000}


def digits():
    apply, params = zoo.load("resnet18", classes=10, image_size=32, width=0.25)
    return apply, params


def resnet20():
    """He et al. 2015, section 4.2: three stages of three blocks, 16 to 64 channels."""
    rng = np.random.default_rng(0)

    def kernel(window, inputs, outputs):
        spread = (2 / (window**2 * inputs)) ** 0.5
        return rng.normal(size=(window, window, inputs, outputs)).astype(np.float32) * spread

    params, inputs = {"stem": kernel(3, 3, 16)}, 16
    for stage, outputs in enumerate((16, 32, 64)):
        for block in range(3):
            name = f"{stage}.{block}"
            params |= {f"{name}.first": kernel(3, inputs, outputs)}
            params |= {f"{name}.second": kernel(3, outputs, outputs)}
            if inputs != outputs:
                params[f"{name}.side"] = kernel(1, inputs, outputs)
            inputs = outputs
    return forward, params | {"fc": kernel(1, 64, 10)[0, 0]}


def forward(params, images):
    def conv(value, name, stride=1):
        return jax.lax.conv_general_dilated(
            value,
            params[name],
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    hidden = jax.nn.relu(conv(images, "stem"))
    for name in (name.removesuffix(".first") for name in params if name.endswith("first")):
        stride = 2 if f"{name}.side" in params else 1
        short = conv(hidden, f"{name}.side", stride) if stride > 1 else hidden
        inside = jax.nn.relu(conv(hidden, f"{name}.first", stride))
        hidden = jax.nn.relu(conv(inside, f"{name}.second") + short)
    return hidden.mean((1, 2)) @ params["fc"]


NETWORKS = {"digits": digits, "resnet20": resnet20}


@pytest.fixture(scope="module")
def chip():
    if missing := h100.missing():
        pytest.skip(missing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "gpu")
        patch.setattr(compiler, "_compile", lru_cache(h100.compiled))
        yield h100.device()


@pytest.fixture(scope="module")
def traced(request):
    apply, params = NETWORKS[request.param]()
    images = np.random.default_rng(1).normal(size=(4, 32, 32, 3)).astype(np.float32)
    return request.param, trace(apply, params, images), images


@pytest.fixture(scope="module", params=FORMATS)
def made(request, traced, chip):
    """All programs of an evaluator, and what they are for."""
    (name, network, images), (bits, units, most) = traced, FORMATS[request.param]
    fmt = QFormat(16, 7) if bits == 16 else QFormat(bits=8, scale="tensor")
    quantized = replace(encoded(quantize(network, fmt, images)), units=units)
    own = sizes.choose(
        quantized.graph,
        IMAGES[name],
        rows=ROWS,
        room=h100.MEMORY // 4,
        alone=False,
        kernels=sizes.kernel_bytes(quantized.graph),
    )
    faults = FaultModel(bits=range(bits // 4), weight_rate=0.2, activation_rate=0.2).spec()
    shapes = programs.Shapes.of(quantized, images[:1])
    # Not the cached function: who comes later in this process has another compiler.
    compile_for = partial(programs.compile_programs.__wrapped__, faults, as_they_are, shapes)
    return compile_for(own, chip), own, quantized, most


def as_they_are(images):
    return images.astype(jnp.float32)


pytestmark = pytest.mark.parametrize("traced", NETWORKS, indirect=True)


def stages(made):
    """Stage, its layer or None, and its program, the first stage left out."""
    own, _, quantized, _ = made
    for stage, run in zip(own.stages[1:], own.run[1:], strict=True):
        layer = None if stage.layer is None else quantized.layers[stage.layer]
        yield stage, layer, run.call


def test_sizes_are_those_of_an_accelerator(made):
    _, own, _, _ = made
    assert own.slots > 1 and own.nodes > 1 and own.images * own.nodes > 2**11


def test_a_stage_is_few_launches_and_one_loop_over_tiles(made):
    for _, layer, program in stages(made):
        most = 4 if layer is None else made[-1]
        assert program.loops == 1
        assert program.launches <= most, (layer, program.outside, program.inside)


def test_masks_are_never_kept(made):
    """Hash, thresholds and flips are one kernel with the gather; what it leaves are operands."""
    _, own, _, _ = made
    for _, layer, program in stages(made):
        if layer is None:
            continue
        for value in program.values:
            mask = value.dtype in ("pred", "u8", "s16", "u16", "s32", "u32")
            assert not mask or value.elements < own.nodes * own.images * layer.inputs, value


def test_temporary_memory_is_operands_and_products(made):
    """Of one tile: codes, products, each in so many parts of 4 bytes at most, and the kernel.

    The image of few channels is padded to four, and its copy lies beside it.
    """
    _, own, quantized, _ = made
    parts = 2 if quantized.format.bits > 9 else 1
    for _, layer, program in stages(made):
        most = 0
        if layer is not None:
            codes = parts * layer.inputs * max(1, 4 / layer.input_channels)
            products = parts**2 * layer.outputs
            most = 4 * own.nodes * own.images * (2 * codes + products)
            most += 16 * parts * layer.weights * dense(layer)
        assert program.temporary_bytes <= most + 2**20, (layer, program.temporary_bytes, most)


def dense(layer):
    """How many times larger a small convolution's matrix is than its kernel, at most."""
    return max(1, prod(layer.output_size)) ** 2 if layer.window else 1


def test_tables_of_kernels_stay_as_they_lie(made):
    """Nothing as large as all faulty kernels is made where one of them is read."""
    for _, layer, program in stages(made):
        if layer is None:
            continue
        whole = made[1].kernels * layer.weights
        large = [v for v in program.values if v.elements in (whole, whole + layer.weights)]
        assert not large, (layer, large)


def test_int8_convolutions_are_of_bytes(made):
    units, found = made[2].units, 0
    for _, layer, program in stages(made):
        own = program.convolutions
        expected = ("s8", "s8") if units == "int8" else ("f32", "f32")  # as XLA widens bfloat16
        assert own == [expected] * len(own), (layer, own)
        found += len(own)
    assert found


def test_faulty_kernels_are_made_many_at_a_time(made):
    own, chosen, quantized, _ = made
    for layer, program in zip(quantized.layers, own.kernels, strict=True):
        assert program.call.loops == 1 and program.call.launches <= 11, program.call.inside
        codes = quantized.parameters.layers[layer.name].kernel
        assert chosen.kernels_of(codes) >= min(chosen.kernels, 64)
        assert program.temporary_bytes <= 2**20


def test_faulty_kernels_at_sites_are_made_many_at_a_time(made, chip):
    _, chosen, quantized, _ = made
    shape = quantized.parameters.layers[quantized.layers[1].name].kernel.shape
    sites = programs.compile_sites.__wrapped__("flip", 1, quantized.format, shape, chosen, chip)
    assert sites.call.loops == 1 and sites.call.launches <= 11, sites.call.inside


def test_single_faults_of_weights_share_tiles_and_kernels(traced, chip):
    """Their sums are exchanged: a stage is one loop over tiles of many nodes, and reads one kernel.

    Beside what a stage does there are the weights that meet and their products.
    """
    _, network, images = traced
    quantized = replace(encoded(quantize(network, QFormat(16, 7), images)), units="bfloat16")
    shapes = programs.Shapes.of(quantized, images[:1])
    room = h100.MEMORY // 4
    own = sizes.choose(quantized.graph, 250, rows=ROWS, room=room, alone=False, kernels=0)
    spec = FaultSpec(exchanged=1)
    single = programs.compile_programs.__wrapped__(spec, as_they_are, shapes, own, chip)
    assert own.nodes >= 16 and not any(single.kernels)
    for stage, _, program in stages((single, own, quantized, 0)):
        assert program.loops == 1
        most = 4 if stage.layer is None else 20
        assert program.launches <= most, (stage.layer, program.outside, program.inside)


def test_streams_are_one_kernel_without_loops(made):
    program = made[0].streams.call
    assert program.loops == 0 and program.launches <= 3
    assert made[0].streams.temporary_bytes <= made[0].streams.output_bytes


def test_the_first_stage_and_the_metric_are_a_few_launches(made, chip):
    own, chosen, _, _ = made
    compile_metric = programs.compile_metric.__wrapped__
    metric = compile_metric(RIGHT, own.logits, chosen.rows, chip).call
    assert own.first.call.loops == metric.loops == 0
    assert own.first.call.launches <= 3 and metric.launches <= 4, (metric.outside,)
