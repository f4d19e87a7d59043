"""How new genomes are made: operators for one individual or one pair; the search maps them.

Legend: G genes. A crossover takes (key, first, second, rate) and returns two children, a mutation
takes (key, genome, rate) and returns one genome; everything else is bound beforehand with
`functools.partial`. Integer genes hold categories (device numbers): no order is assumed.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped


def random_categories(key: PRNGKeyArray, cardinality: Int[Array, " G"]) -> Int[Array, " G"]:
    """A genome drawn uniformly: gene g is one of 0 … cardinality[g]-1. Shape [G], int32."""
    return _whole(jax.random.uniform(key, cardinality.shape, jnp.float32), cardinality)


def tournament(key: PRNGKeyArray, criteria: list[Shaped[Array, " P"]]) -> Int[Array, " P"]:
    """P winners of duels in which each of P individuals fights twice. Shape [P], indices.

    The lower value of the first criterion wins, where equal that of the next, at last chance.
    """
    size = criteria[0].shape[0]
    order = [jax.random.permutation(key, size) for key in jax.random.split(key)]
    one, other = jnp.concatenate(order).reshape(size, 2).T
    wins = jnp.ones(size, bool)  # of equals the first; who comes first is chance
    for value in reversed(criteria):  # each overrules those after it
        wins = jnp.where(value[one] == value[other], wins, value[one] < value[other])
    return jnp.where(wins, one, other)


def two_point_crossover(
    key: PRNGKeyArray, first: Shaped[Array, " G"], second: Shaped[Array, " G"], rate: ArrayLike
) -> tuple[Shaped[Array, " G"], Shaped[Array, " G"]]:
    """With probability `rate`, swap the genes between two different cuts drawn uniformly.

    Neighbouring layers stay together, which uniform crossover does not grant: every place where
    a mapping changes device costs a transfer.
    """
    genes = first.shape[0]
    luck, *cuts = jax.random.uniform(key, (3,), jnp.float32)
    one, other = _whole(cuts[0], genes + 1), _whole(cuts[1], genes)
    other = _skip(other, one)
    place = jnp.arange(genes, dtype=jnp.int32)
    inside = (place >= jnp.minimum(one, other)) & (place < jnp.maximum(one, other))
    return _swap(inside & (luck < rate), first, second)


def reset_mutation(
    key: PRNGKeyArray,
    genome: Int[Array, " G"],
    rate: ArrayLike,
    *,
    cardinality: Int[Array, " G"],
) -> Int[Array, " G"]:
    """Each gene becomes, with probability `rate`, one of its other values, all equally likely.

    A gene of one value never changes.
    """
    luck, draw = jax.random.uniform(key, (2, *genome.shape), jnp.float32)
    value = _skip(_whole(draw, cardinality - 1).astype(genome.dtype), genome)
    return jnp.where((luck < rate) & (cardinality > 1), value, genome)


def simulated_binary_crossover(
    key: PRNGKeyArray,
    first: Float[Array, " G"],
    second: Float[Array, " G"],
    rate: ArrayLike,
    *,
    lower: Float[Array, " G"],
    upper: Float[Array, " G"],
    spread_index: float = 15.0,
    gene_rate: float = 0.5,
) -> tuple[Float[Array, " G"], Float[Array, " G"]]:
    """With probability `rate`, each gene with `gene_rate`: children around the parents, in bounds.

    The bounded form of Deb and Agrawal, "Simulated binary crossover for continuous search space",
    1995: on each side, the spread is drawn from its distribution cut off where the bound lies.
    """
    keys = jax.random.split(key, 4)
    low, high = jnp.minimum(first, second), jnp.maximum(first, second)
    distance = high - low
    apart = distance > 1e-12
    safe = jnp.where(apart, distance, 1)
    draw = jax.random.uniform(keys[0], first.shape, first.dtype)
    below = _spread(draw, 1 + 2 * (low - lower) / safe, spread_index)
    above = _spread(draw, 1 + 2 * (upper - high) / safe, spread_index)
    left = jnp.clip((low + high - below * distance) / 2, lower, upper)
    right = jnp.clip((low + high + above * distance) / 2, lower, upper)
    left, right = _swap(jax.random.bernoulli(keys[1], 0.5, first.shape), left, right)
    taken = apart & jax.random.bernoulli(keys[2], rate)
    taken &= jax.random.bernoulli(keys[3], gene_rate, first.shape)
    return jnp.where(taken, left, first), jnp.where(taken, right, second)


def polynomial_mutation(
    key: PRNGKeyArray,
    genome: Float[Array, " G"],
    rate: ArrayLike,
    *,
    lower: Float[Array, " G"],
    upper: Float[Array, " G"],
    spread_index: float = 20.0,
    individual_rate: float = 0.9,
) -> Float[Array, " G"]:
    """With `individual_rate`, each gene with `rate`: a step, small ones likely, within the bounds.

    Deb and Deb, "Analysing mutation schemes for real-parameter genetic algorithms", 2014,
    in its bounded form.
    """
    whole_key, gene_key, step_key = jax.random.split(key, 3)
    draw = jax.random.uniform(step_key, genome.shape, genome.dtype)
    width = upper - lower
    down = draw < 0.5
    room = 1 - jnp.where(down, genome - lower, upper - genome) / width
    mass = 2 * jnp.where(down, draw, 1 - draw)
    size = 1 - (mass + (1 - mass) * room ** (spread_index + 1)) ** (1 / (spread_index + 1))
    moved = jnp.clip(genome + jnp.where(down, -size, size) * width, lower, upper)
    hit = jax.random.bernoulli(gene_key, rate, genome.shape)
    hit &= jax.random.bernoulli(whole_key, individual_rate)
    return jnp.where(hit, moved, genome)


def _whole(draw: Float[Array, "*G"], choices: Int[ArrayLike, "*G"]) -> Int[Array, "*G"]:
    """Uniform float32 numbers of [0, 1) as whole ones of 0 … choices-1, int32.

    Each is equally likely to within 2^-23. One draw serves where `jax.random.randint` makes three,
    which is a third of the time to compile a search's `ask`.
    """
    return jnp.floor(draw * jnp.asarray(choices, draw.dtype)).astype(jnp.int32)


def _skip(value: Int[Array, "*G"], taken: Int[Array, "*G"]) -> Int[Array, "*G"]:
    """Number all others than `taken`: from there on, one up."""
    return value + (value >= taken).astype(value.dtype)


def _swap(
    mask: Bool[Array, " G"], first: Shaped[Array, " G"], second: Shaped[Array, " G"]
) -> tuple[Shaped[Array, " G"], Shaped[Array, " G"]]:
    return jnp.where(mask, second, first), jnp.where(mask, first, second)


def _spread(
    draw: Float[Array, " G"], bound: Float[Array, " G"], index: float
) -> Float[Array, " G"]:
    """SBX's spread factor for uniform draws, given how far (in half distances) the bound lies."""
    scaled = draw * (2 - bound ** -(index + 1))
    return jnp.where(scaled <= 1, scaled, 1 / (2 - scaled)) ** (1 / (index + 1))
