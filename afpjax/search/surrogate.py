"""A search that learns: few measurements, an exact program over mappings between them.

The reference and all its single moves are measured first. Ridge regression on the moves (`ridge`)
then says what a mapping is worth and how sure that is. In rounds, half of the new mappings come
from the exact program (`program`) with worths drawn from the posterior (Thompson sampling; the
first with its mean), half are the best predicted exchanges of one or two layers around the two
best; all are measured, and the regression is fitted anew. The best then meet more draws. Where
maximal mappings are few (`maximal`), the program chooses among them alone, or all are measured.

Where the reference gets next to nothing right, moves say nothing: all rates are scaled down until
they do, and up again as better mappings keep more.

Shape legend: P mappings, L layers, D devices, F moves.
"""

from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from afpjax.evaluate.evaluator import Progress
from afpjax.hardware.tables import CostTables
from afpjax.inputs.errors import InputError
from afpjax.search import ridge
from afpjax.search.evidence import Evidence
from afpjax.search.maximal import Reliability, maximal
from afpjax.search.objectives import NO_CAPS, Caps, LossObjective, costs, violation
from afpjax.search.program import Accept, priced_within, program_of, solve
from afpjax.search.ridge import DRAWS

ROUNDS = 6
SIZE = 16  # mappings of a round
FINALISTS = 12
MORE_DRAWS = 6  # for finalists
FEW = 96  # mappings that are all measured: no more than rounds would
_GAP = 1e-3  # of the optimum that the program may miss with worths that are drawn anyway
_LOWEST = 1 / 64  # factor on all rates
_CHANCE = 0.02  # share of what faults can take that is kept: less is as good as nothing
_KEEPS = 0.5  # of it: at so much the rates go up again
_NOTHING = 0.01  # accuracy that may be lost and is called nothing
_LOOKED_AT = 8  # exchanges that are allowed, for each that is wanted
_CHUNK = 1024  # exchanges whose costs are looked at together


@dataclass(frozen=True)
class SurrogatePlan:
    """How much a search may measure under one allowance."""

    rounds: int = ROUNDS
    size: int = SIZE
    finalists: int = FINALISTS

    def passes(self, images: int) -> int:
        """The most passes of an image that rounds and finals take."""
        learnt = self.rounds * self.size * DRAWS + self.finalists * (DRAWS + MORE_DRAWS)
        return learnt * images

    @property
    def mappings(self) -> int:
        """How many are measured at most; finalists a second time."""
        return self.rounds * self.size + self.finalists

    def within(self, effort: int, images: int, moves: int) -> "SurrogatePlan":
        """As many rounds as `effort` image passes allow (0: any) beside the moves and the finals.

        Raises `InputError` where they do not pay for one.
        """
        if not effort:
            return self
        first = (moves + 1) * DRAWS + self.finalists * MORE_DRAWS
        rounds = (effort // images - first) // (self.size * DRAWS)
        if rounds < 1:
            raise InputError(
                f"search.effort: {effort} image passes are too few; with search.method = surrogate "
                f"{moves} single moves, a round and the last draws take "
                f"{(first + self.size * DRAWS) * images}; raise it, or give 0 for no limit"
            )
        return replace(self, rounds=min(self.rounds, rounds))


class SurrogateFound(NamedTuple):
    """The best mappings under one allowance, the best first, and how they were found."""

    mappings: Int[np.ndarray, "P L"]
    worth: Float[np.ndarray, " P"]
    method: str  # "nothing lost", "all maximal", "learnt among maximal" or "learnt"
    maximal: int | None  # how many maximal mappings there are, None where that is a lot


class Surrogate:
    """One search; allowances may be asked for one after the other, and what is known is kept.

    Its answer follows from the seed and from what was asked before, not from what an evaluator
    remembers.
    """

    def __init__(
        self,
        seed: int,
        tables: CostTables,
        reliability: Reliability,
        objective: LossObjective,
        reference: Int[np.ndarray, " L"],
        *,
        chance: float,
        caps: Caps = NO_CAPS,
    ) -> None:
        self.evidence = Evidence(objective)
        self.factor = 1.0  # on all rates, for what is learnt
        self.first_factor = 1.0  # at which single moves said something
        self.reference = reference.astype(np.int32)
        self._tables, self._reliability, self._caps = tables, reliability, caps
        self._moves = ridge.moves_of(reliability, self.reference)
        self._program = program_of(tables, reliability.alike)
        self._rng = np.random.default_rng(seed)
        self._clean, self._chance = objective.fault_free()[0], chance
        self._began = False
        self._many = NO_CAPS  # within these there are more maximal mappings than are few

    @property
    def moves(self) -> int:
        """How many single moves away from the reference there are."""
        return self._moves.count

    @property
    def loses_nothing(self) -> bool:
        """Whether faults take nothing from the reference that could be regained."""
        self.evidence.measure(self.reference[None])
        return self.evidence.accuracy(self.reference, 1.0) >= self._clean - _NOTHING

    def search(
        self,
        allowance: Caps,
        plan: SurrogatePlan | None = None,
        *,
        progress: Progress = lambda mappings: None,
    ) -> SurrogateFound:
        """The best mappings within an allowance, of all that was measured at the given rates.

        `progress` is told how many mappings were measured.
        """
        self.evidence.progress = progress
        plan, caps = plan or SurrogatePlan(), self._caps.within(allowance)
        if self.loses_nothing or not self.moves:
            return SurrogateFound(self.reference[None], np.zeros(1), "nothing lost", None)

        accept: Accept = partial(self._accepted, allowance=allowance)
        pool = self._maximal(caps, accept)
        if pool is not None:  # nothing else can be the best
            names = set(self.evidence.objective.names(pool))
            accept = self._among(names)
        if pool is not None and len(pool) <= min(FEW, plan.rounds * plan.size):
            method = "all maximal"
            self.evidence.measure(pool)
        else:
            method = "learnt" if pool is None else "learnt among maximal"
            self._learn(plan, caps, accept, pool)
        best = self._ranked(accept)[0][: plan.finalists]
        if pool is None:
            best = self._upgraded(best, accept)
        self.evidence.measure(best, DRAWS + MORE_DRAWS)
        mappings, worth = self._ranked(accept, factor=1.0, least=DRAWS + MORE_DRAWS)
        return SurrogateFound(mappings, worth, method, None if pool is None else len(pool))

    def prefer(self, mapping: Int[np.ndarray, " L"]) -> None:
        """Have a mapping that another search found among those that are chosen from."""
        self.evidence.measure(mapping[None], DRAWS + MORE_DRAWS)

    def _accepted(
        self, mappings: Int[np.ndarray, "P L"], allowance: Caps
    ) -> Bool[np.ndarray, " P"]:
        """Which keep within memory and caps to the last bit, and the allowance but for rounding."""
        cost = costs(self._tables, mappings)
        return priced_within(cost, allowance) & (violation(cost, self._caps) <= 0)

    def _maximal(self, caps: Caps, accept: Accept) -> Int[np.ndarray, "P L"] | None:
        """Maximal mappings, None where they are many; wider caps are then not looked at again."""
        many = self._many
        if caps.latency_ms >= many.latency_ms and caps.energy_mj >= many.energy_mj:
            return None
        pool = maximal(self._tables, self._reliability, caps, accept)
        if pool is None:
            self._many = caps
        return pool

    def _among(self, names: set[bytes]) -> Accept:
        """Which mappings are, but for what is alike, some of these."""

        def accept(mappings: np.ndarray) -> np.ndarray:
            own = self.evidence.objective.names(mappings)
            return np.array([name in names for name in own], bool)

        return accept

    def _begin(self) -> None:
        """The reference and its single moves, at rates at which they tell something."""
        if self._began:
            return
        self._began = True
        moves = self._moves.single(self.reference)
        while True:
            self.evidence.measure(self.reference[None], factor=self.factor)
            if self.factor <= _LOWEST or self._kept(self.reference) > _CHANCE:
                self.evidence.measure(moves, factor=self.factor)
                if self.factor <= _LOWEST or self.evidence.tells(self.factor):
                    return
            self.first_factor = self.factor = self.factor / 2

    def _kept(self, mapping: Int[np.ndarray, " L"]) -> float:
        """Share that is kept of what faults can take, at the rates that are learnt at."""
        accuracy = self.evidence.accuracy(mapping, self.factor)
        return (accuracy - self._chance) / max(self._clean - self._chance, 1e-9)

    def _learn(
        self,
        plan: SurrogatePlan,
        caps: Caps,
        accept: Accept,
        pool: Int[np.ndarray, "P L"] | None,
    ) -> None:
        """Rounds of measurements."""
        self._begin()
        for _ in range(plan.rounds):
            half = plan.size // 2
            new = self._sampled(half, caps, accept, pool)
            new = self._exchanged(plan.size - len(new), accept, new, pool is not None)
            if not len(new):
                return
            self.evidence.measure(new, factor=self.factor)
            if self.factor < 1 and max(map(self._kept, new)) > _KEEPS:
                self.factor *= 2
                self.evidence.measure(self.reference[None], factor=self.factor)

    def _posterior(self) -> ridge.Posterior:
        known = self.evidence.table()
        groups = np.unique(known.factor, return_inverse=True)[1]
        features = self._moves.features(known.mappings)
        return ridge.posterior(features, known.worth, known.draws, groups)

    def _sampled(
        self,
        count: int,
        caps: Caps,
        accept: Accept,
        pool: Int[np.ndarray, "P L"] | None,
    ) -> Int[np.ndarray, "_ L"]:
        """New mappings that are the best for worths drawn from the posterior."""
        posterior, found = self._posterior(), np.zeros((0, len(self.reference)), np.int32)
        known = self.evidence.table().mappings
        known = known[accept(known)]
        if pool is not None:
            pool = pool[~np.array(self.evidence.knows(pool), bool)]
        for number in range(count):
            drawn = posterior.draw(self._rng) if number else posterior.mean
            gain = ridge.gains(self._moves, drawn)
            if pool is not None:
                if not len(pool):
                    break
                place = int(ridge.total(gain, pool).argmax())
                choice, pool = pool[place].astype(np.int32), np.delete(pool, place, axis=0)
            else:
                choice = solve(
                    self._program,
                    self._program.objective(gain),
                    caps,
                    excluded=np.concatenate([known, found]),
                    accept=accept,
                    gap=_GAP if number else 0.0,
                )
                if choice is None:
                    break
            found = np.concatenate([found, choice[None]])
        return found

    def _exchanged(
        self, count: int, accept: Accept, found: Int[np.ndarray, "_ L"], is_pool: bool
    ) -> Int[np.ndarray, "_ L"]:
        """`found`, and new mappings one or two exchanges away from the two best, best predicted."""
        gain = ridge.gains(self._moves, self._posterior().mean)
        best, _ = self._ranked(accept)
        if not len(best):
            return found
        near = np.concatenate([exchanges(one, self._reliability) for one in best[:2]])
        near = near[np.argsort(-ridge.total(gain, near), kind="stable")]
        names, wanted = self.evidence.objective.names, len(found) + count
        taken = {*names(found)}
        left = _LOOKED_AT * count
        for start in range(0, len(near), _CHUNK):
            part = near[start : start + _CHUNK]
            for mapping in part[accept(part)]:
                left -= 1
                if len(found) == wanted or left < 0:
                    return found
                if not is_pool:
                    mapping = self._upgraded(mapping[None], accept)[0]
                (name,) = names(mapping[None])
                if name not in taken and not self.evidence.knows(mapping[None])[0]:
                    found = np.concatenate([found, mapping[None]])
                taken.add(name)
        return found

    def _upgraded(self, mappings: Int[np.ndarray, "P L"], accept: Accept) -> Int[np.ndarray, "P L"]:
        """Mappings with layers moved to safer devices, the best predicted first, while allowed.

        No answer may leave out an upgrade that is allowed.
        """
        gain = ridge.gains(self._moves, self._posterior().mean)
        safer, upgraded = self._reliability.safer, mappings.copy()
        for mapping in upgraded:
            while True:
                moves = np.argwhere(safer[np.arange(len(mapping)), mapping])  # layer, device
                if not len(moves):
                    break
                others = np.repeat(mapping[None], len(moves), axis=0)
                others[np.arange(len(moves)), moves[:, 0]] = moves[:, 1]
                others = others[accept(others)]
                if not len(others):
                    break
                mapping[:] = others[ridge.total(gain, others).argmax()]
        return upgraded

    def _ranked(
        self, accept: Accept, factor: float | None = None, least: int = 0
    ) -> tuple[Int[np.ndarray, "P L"], Float[np.ndarray, " P"]]:
        """What was measured and is accepted, each once, the best first, with what it is worth.

        A mapping's worth is between what was measured and what the moves predict, which counts as
        much as `DRAWS` draws. `factor` and `least`: only what met so many draws at these rates.
        """
        known, posterior = self.evidence.table(), self._posterior()
        predicted = self._moves.features(known.mappings) @ posterior.mean
        for factor_ in np.unique(known.factor):  # each has a level of its own
            same = known.factor == factor_
            predicted[same] += (known.worth - predicted)[same].mean()
        share = known.draws / (known.draws + DRAWS)
        worth = predicted + share * (known.worth - predicted)
        if factor is None:  # other rates, other measure: by the moves alone, and the residual
            worth = worth - predicted + self._moves.features(known.mappings) @ posterior.mean
        keep = accept(known.mappings) & (known.draws >= least)
        keep &= (known.factor == factor) if factor is not None else True
        mappings, worth = known.mappings[keep], worth[keep]
        order = np.argsort(-worth, kind="stable")
        _, first = np.unique(self._reliability.choices(mappings[order]), axis=0, return_index=True)
        order = order[np.sort(first)]
        return mappings[order], worth[order]


def exchanges(mapping: Int[np.ndarray, " L"], reliability: Reliability) -> Int[np.ndarray, "P L"]:
    """All mappings that differ in one layer or two, alike choices once."""
    moves = [
        (layer, device)
        for layer, device in np.ndindex(*reliability.alike.shape)
        if reliability.alike[layer, device] != reliability.alike[layer, mapping[layer]]
        and reliability.alike[layer, device] == device
    ]
    both = [pair for pair in combinations(moves, 2) if pair[0][0] != pair[1][0]]
    found = np.repeat(mapping[None], len(moves) + len(both), axis=0)
    for row, made in enumerate([*((move,) for move in moves), *both]):
        for layer, device in made:
            found[row, layer] = device
    return found


def refuse_strategy(strategy: str) -> None:
    """Raise `InputError` where mappings are not judged with faults in all layers together."""
    if strategy == "layerwise":
        raise InputError(
            "search.method: surrogate learns from faults in all layers together; with "
            "faults.strategy = layerwise give nsga2"
        )
