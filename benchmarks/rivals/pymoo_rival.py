# pyright: reportMissingImports=false
"""pymoo 0.6.2's NSGA-II on its own DTLZ2, one generation at a time."""

from collections.abc import Sequence

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.config import Config
from pymoo.problems import get_problem
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

Config.warnings["not_compiled"] = False  # said in a line of its own, on standard output


class Search:
    """A search that has its first population."""

    def __init__(self, population: int, genes: int, objectives: int) -> None:
        problem = get_problem("dtlz2", n_var=genes, n_obj=objectives)
        self.algorithm = NSGA2(pop_size=population)
        self.algorithm.setup(problem, termination=("n_gen", 10**9), seed=1, verbose=False)
        self.algorithm.next()

    def run(self, numbers: Sequence[int]) -> None:
        for _ in numbers:
            self.algorithm.next()


def objectives_of(genomes: np.ndarray, objectives: int) -> np.ndarray:
    """pymoo's own values of DTLZ2, float64 [N, M]."""
    problem = get_problem("dtlz2", n_var=genomes.shape[1], n_obj=objectives)
    return np.asarray(problem.evaluate(genomes.astype(np.float64), return_values_of=["F"]))


def ranks(objectives: np.ndarray) -> np.ndarray:
    """The number of every individual's front, 0 the best."""
    found = np.empty(len(objectives), np.int32)
    for rank, front in enumerate(NonDominatedSorting().do(objectives)):
        found[front] = rank
    return found
