"""What tests of NSGA-II start from: a small algorithm, its genomes, and fitness from arrays."""

import jax
import jax.numpy as jnp
import numpy as np

from afpjax.search.nsga2 import NSGA2
from afpjax.search.pareto import Fitness

SIZE, GENES = 24, 10
ALGORITHM = NSGA2.integers(SIZE, np.full(GENES, 3))
PARAMS = ALGORITHM.default_params
KEY = jax.random.key(0)


def fitness(objectives, violation=None):
    """In float32, and feasible where nothing is said."""
    objectives = np.asarray(objectives, np.float32)
    violation = np.zeros(len(objectives)) if violation is None else violation
    return Fitness(jnp.asarray(objectives), jnp.asarray(np.asarray(violation, np.float32)))


def distinct_genomes(seed, count):
    numbers = np.random.default_rng(seed).choice(3**GENES, count, replace=False)
    return (numbers[:, None] // 3 ** np.arange(GENES) % 3).astype(np.int32)
