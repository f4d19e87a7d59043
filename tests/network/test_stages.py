"""Stages: every step once, parents first, and no dependence that a program does not have."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.network.interpreter import Network, execute, run_steps
from afpjax.network.program import LayerCall, Value, reads
from afpjax.network.stages import Stage, stages
from afpjax.network.trace import trace


def conv(x, kernel, stride=1, groups=1):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=layout, feature_group_count=groups
    )


def relu(x):
    return jnp.maximum(x, jnp.zeros_like(x))


def flat(x):
    return x.reshape(x.shape[0], -1)


def residual(p, x):
    stem = relu(conv(x, p["stem"]))
    main = conv(relu(conv(stem, p["up"], 2)), p["down"])
    return flat(relu(main + conv(stem, p["shortcut"], 2))) @ p["fc"]


def branched(p, x):
    """Two branches, concatenated; and a product of two layers' values at the end."""
    trunk = jnp.tanh(flat(x) @ p["trunk"])
    both = [jnp.tanh(trunk @ p["left"]), jnp.tanh(trunk @ p["right"])]
    return (jnp.concatenate(both, axis=1) @ p["fc"]) * both[0]


def three_readers(p, x):
    read = jnp.tanh(flat(x) @ p["a"])
    made = [jnp.tanh(read @ p[name]) for name in "bcd"]
    return (made[0] * made[1] + made[2] + read) @ p["e"]


def shared_parameter(p, x):
    """One broadcast of a parameter, which two stages read; and a join that reads a later join."""
    shift = jnp.broadcast_to(p["shift"], (1, 4))
    a, b = jnp.tanh(flat(x) @ p["a"] * shift + flat(x)[:, :4]), flat(x) @ p["b"]
    c = jnp.tanh(jnp.maximum(a, shift) @ p["c"])
    early = c * b
    return early + jnp.maximum(a * b, shift)


def equal_layers(p, x):
    x = flat(x)
    for name in "abcd":
        x = jnp.tanh(x @ p[name])
    return x


class Case(NamedTuple):
    apply_fn: Any
    shapes: dict[str, tuple[int, ...]]
    image: tuple[int, ...] = (6,)


NETWORKS = {
    "residual": Case(
        residual,
        dict(
            stem=(3, 3, 3, 4), up=(3, 3, 4, 5), down=(3, 3, 5, 5), shortcut=(1, 1, 4, 5), fc=(45, 3)
        ),
        (6, 6, 3),
    ),
    "branched": Case(branched, dict(trunk=(6, 5), left=(5, 3), right=(5, 4), fc=(7, 3))),
    "three readers": Case(three_readers, dict(a=(6, 5), b=(5, 5), c=(5, 5), d=(5, 5), e=(5, 3))),
    "shared parameter": Case(shared_parameter, dict(a=(6, 4), b=(6, 4), c=(4, 4), shift=(4,))),
    "equal layers": Case(equal_layers, dict.fromkeys("abcd", (5, 5)), (5,)),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def normal(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@cache
def traced(name: str) -> tuple[Network, tuple[Stage, ...]]:
    case = NETWORKS[name]
    params = {n: normal(k, shape) / 2 for k, (n, shape) in enumerate(case.shapes.items())}
    network = trace(case.apply_fn, params, jnp.ones((1, *case.image)))
    return network, stages(network.program)


@cache
def changes(name: str) -> dict[Value, frozenset[str]]:
    """For every value, what changes it: each layer's kernel, or the image ("")."""
    network, _ = traced(name)
    program = network.program

    @jax.jit
    def values(parameters, image):
        environment = dict(zip(program.constants, parameters.constants, strict=True))
        environment[program.image] = image
        run_steps(program.steps, environment, parameters.layers)
        return environment

    def seen(parameters, image_seed):
        image = normal(image_seed, program.image_shape)
        return {v: np.asarray(a) for v, a in values(parameters, image).items()}

    def other(layer):
        layers = network.parameters.layers
        kernel = normal(50, layers[layer].kernel.shape) / 2
        changed = layers | {layer: layers[layer]._replace(kernel=kernel)}
        return network.parameters._replace(layers=changed)

    usual = seen(network.parameters, 40)
    runs = {layer.name: seen(other(layer.name), 40) for layer in network.layers}
    runs[""] = seen(network.parameters, 41)
    return {
        value: frozenset(what for what, run in runs.items() if (run[value] != array).any())
        for value, array in usual.items()
    }


@every_network
def test_every_layer_is_in_one_stage_and_every_equation_runs_once(name):
    network, cut = traced(name)
    layers = [layer for stage in cut if (layer := stage.layer) is not None]
    # In the program's order: values wait for their readers no longer.
    assert layers == list(range(len(network.layers)))
    for stage in cut:
        calls = [step.layer for step in stage.steps if isinstance(step, LayerCall)]
        assert calls == ([] if stage.layer is None else [network.layers[stage.layer]])
    counts = {id(step): 0 for step in network.program.steps}
    for step in (step for stage in cut for step in stage.steps):
        counts[id(step)] += 1
    for step in network.program.steps:
        of_the_image = "" in changes(name)[step.outputs[0]]
        assert counts[id(step)] == 1 if of_the_image else counts[id(step)] >= 1


@every_network
def test_parents_come_first_and_make_the_inputs_and_constants_are_those_that_are_read(name):
    network, cut = traced(name)
    program = network.program
    assert cut[0].parents == () and program.output in cut[-1].outputs
    for place, stage in enumerate(cut):
        of_steps = {value for step in stage.steps for value in reads(step)}
        assert set(stage.constants) == of_steps & set(program.constants)
        assert len(stage.parents) == len(stage.inputs) == len(set(stage.inputs))
        for parent, value in zip(stage.parents, stage.inputs, strict=True):
            assert parent < place and value in cut[parent].outputs
    read = [value for stage in cut for value in stage.inputs] + [program.output]
    kept = [value for stage in cut for value in stage.outputs]
    assert len(kept) == len(set(kept)) and set(kept) == set(read)


@every_network
def test_stage_by_stage_gives_the_logits_of_execute_bit_for_bit(name):
    network, cut = traced(name)
    program, parameters = network.program, network.parameters
    image = normal(40, program.image_shape)
    constants = dict(zip(program.constants, parameters.constants, strict=True))
    names, kept = [layer.name for layer in network.layers], {}
    for place, stage in enumerate(cut):
        environment = {value: constants[value] for value in stage.constants}
        environment |= {value: kept[value] for value in stage.inputs}
        if place == 0:
            environment[program.image] = image
        own = [] if stage.layer is None else [names[stage.layer]]
        run_steps(stage.steps, environment, {name: parameters.layers[name] for name in own})
        kept |= {value: environment[value] for value in stage.outputs}
    expected = np.asarray(execute(program, parameters, image))
    assert np.ptp(expected) > 0
    np.testing.assert_array_equal(np.asarray(kept[program.output]), expected)


@every_network
def test_a_stage_depends_on_the_layers_that_change_its_values_and_on_no_others(name):
    """Parents' layers and its own, by the plan's rule, against other kernels tried one by one."""
    network, cut = traced(name)
    known: list[frozenset[str]] = []
    for stage in cut:
        own = [] if stage.layer is None else [network.layers[stage.layer].name]
        known.append(frozenset(own).union(*(known[parent] for parent in stage.parents)))
        for value in stage.outputs:
            assert changes(name)[value] - {""} == known[-1]
    assert len(set(known)) == len(known), "two stages of the same layers should be one"


def test_layers_of_equal_shape_have_stages_of_equal_shape():
    """So that their programs are equal; the last also drops the batch axis of the logits."""
    _, cut = traced("equal layers")
    assert len(cut) == 5
    shapes = {(len(s.steps), len(s.inputs), len(s.outputs), len(s.constants)) for s in cut[1:-1]}
    assert len(shapes) == 1
