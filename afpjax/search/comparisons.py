"""Mappings that have met different numbers of draws, compared on those that both have met.

Legend: N mappings of a pool, F rivals among them, K draws.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from afpjax.search.hypervolume import non_dominated

_QUANTILE = 0.975  # one-sided: one close call in forty goes wrong
_PRIOR = 4  # draws' worth of trust in the spread of all pairs, beside a pair's own few draws


class Pool(NamedTuple):
    """Different mappings in lexicographic order, and what is known of them."""

    costs: Float[np.ndarray, "N 2"]  # latency and energy, exact
    row: Int[np.ndarray, " N"]  # equal numbers, equal answers
    right: Int[np.ndarray, "N K"]  # images; 0 under draws that were not met
    met: Int[np.ndarray, " N"]  # draws; the first so many


class Pairs(NamedTuple):
    """Every mapping beside every rival, on the draws both have met."""

    common: Int[np.ndarray, "N F"]  # draws
    gap: Float[np.ndarray, "N F"]  # images per draw that the rival gets right more
    squares: Float[np.ndarray, "N F"]  # of the differences, summed
    no_dearer: Bool[np.ndarray, "N F"]  # the rival costs no more latency and no more energy
    cheaper: Bool[np.ndarray, "N F"]  # and less of one
    comparable: Bool[np.ndarray, "N F"]  # one costs no more than the other in both


def contested(pool: Pool) -> Int[np.ndarray, " _"]:
    """Who is to meet more draws, the most urgent first; empty where every place is settled.

    A rival is on the front as it is known. It clearly beats who costs no less and gets fewer images
    right on the draws both met, by more than this gap may still move. Whoever no rival clearly
    beats is open: first the front itself, where luck puts mappings too, then those that the least
    share of their margin keeps from it; among equals those with the fewest draws, among these the
    nearest to a rival.
    """
    trials = pool.right.shape[1]
    if (pool.met == trials).all():
        return np.zeros(0, np.int64)
    rivals = np.flatnonzero(non_dominated(points(pool, estimates(pool))))
    pairs = compare(pool, rivals)
    margin = margins(pool, pairs, rivals)
    sure = (margin == 0) & ((pairs.gap > 0) | ((pairs.gap == 0) & pairs.cheaper))
    share = np.where(sure, np.inf, 0.0)
    np.divide(pairs.gap, margin, out=share, where=margin > 0)
    behind = np.where(pairs.no_dearer, share, 0.0).max(axis=1).clip(0)
    near = np.where(pairs.comparable & (margin > 0), np.abs(share), np.inf).min(axis=1)
    behind[rivals] = -1
    wanted = np.flatnonzero((behind <= 1) & (pool.met < trials))
    return wanted[np.lexsort((near[wanted], pool.met[wanted], behind[wanted]))]


def estimates(pool: Pool) -> Float[np.ndarray, " N"]:
    """Images that each mapping gets right per draw, as if all had met the draws of those with most.

    Whoever met fewer is placed beside one that has: that one's mean, less the gap on the draws both
    met. It is taken from those that beat it there, else from all, the one that differs least. So
    easy first draws flatter nobody, and who is beaten stays beaten.
    """
    means = pool.right.sum(axis=1) / pool.met
    full = np.flatnonzero(pool.met == pool.met.max())
    short = np.flatnonzero(pool.met < pool.met.max())
    if short.size:
        pairs = Pairs(*(column[short] for column in compare(pool, full)))
        beats = pairs.no_dearer & ((pairs.gap > 0) | ((pairs.gap == 0) & pairs.cheaper))
        beside = np.lexsort((pairs.squares / pairs.common, ~beats), axis=1)[:, :1]
        gap = np.take_along_axis(pairs.gap, beside, axis=1)
        means[short] = (means[full[beside]] - gap)[:, 0]
    return means


def compare(pool: Pool, rivals: Int[np.ndarray, " F"]) -> Pairs:
    """All pairs. Counts are whole numbers, so sums are exact and know no order."""
    common = np.minimum(pool.met[:, None], pool.met[rivals])
    answers = pool.right.astype(np.float64)  # 0 under draws not met: products are of common draws
    sums, squares = answers.cumsum(axis=1), (answers**2).cumsum(axis=1)
    rows = np.arange(len(answers))[:, None]
    gaps = sums[rivals, common - 1] - sums[rows, common - 1]
    spread = squares[rivals, common - 1] + squares[rows, common - 1]
    no_more = [mine[:, None] >= mine[rivals] for mine in pool.costs.T]
    no_less = [mine[:, None] <= mine[rivals] for mine in pool.costs.T]
    under, over = no_more[0] & no_more[1], no_less[0] & no_less[1]
    return Pairs(
        common,
        gaps / common,
        spread - 2 * answers @ answers[rivals].T,
        under,
        under & ~over,
        under | over,
    )


def margins(pool: Pool, pairs: Pairs, rivals: Int[np.ndarray, " F"]) -> Float[np.ndarray, "N F"]:
    """By how many images per draw a gap may still move until both have met all K draws.

    Student's interval, one-sided 97.5 %, of a mean of `common` draws out of K (hence 1/common -
    1/K). A few draws say little of a pair's own spread, so it is weighed with that of all
    comparable pairs (moderated t: Smyth 2004), which is taken as one image at least.
    """
    trials = pool.right.shape[1]
    free = pairs.common - 1
    about = np.maximum(pairs.squares - pairs.common * pairs.gap**2, 0)
    same = pool.row[:, None] == pool.row[rivals]
    usual = about[pairs.comparable & ~same].sum() / max(free[pairs.comparable & ~same].sum(), 1)
    variance = (_PRIOR * max(usual, 1.0) + about) / (_PRIOR + free)
    quantile = stats.t.ppf(_QUANTILE, _PRIOR + np.arange(trials))[free]
    margin = quantile * np.sqrt(variance * (1 / pairs.common - 1 / trials))
    return np.where(same, 0.0, margin)


def points(pool: Pool, right: Float[np.ndarray, " N"]) -> Float[np.ndarray, "N 3"]:
    """Latency, energy, and minus the images right: all to be small."""
    return np.column_stack([pool.costs, -right])
