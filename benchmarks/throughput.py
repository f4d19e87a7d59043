"""`throughput`: images × trials per second, clean and with everything struck.

The fault model is AFarePart's: 16-bit fixed point with 8 fraction bits, the 4 low bits of every
layer's weights and inputs flip at 20 %. At batch 64 it is measured in two ways: a new draw of all
weights for every batch of 64 images, as rivals have it, and one draw for 256 images.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks import networks, ours
from benchmarks.agreement import Disagrees, check_equal, check_logits, check_rate
from benchmarks.rivals import NotInstalled, load
from benchmarks.table import Row, number, versus
from benchmarks.timing import Contestant, Effort, Timing, faster, race, speedup

#: (network, batch) -> the rivals of one library
Group = Callable[[ours.Ours, int], list[Contestant]]

UNIT = "images × trials"
CHECKED_IMAGES = 8
QUICK = (8, 1)  # batches
OVER_CLEAN = {64: (0.85, 0.95), 1: {"resnet18": (0.6, 0.8), "alexnet": (0.3, 0.5)}}
OVER_PLAIN = {"resnet18": (3, 5), "alexnet": (6, 12)}  # at batch 64

FLOAT, FIXED = "afpjax clean float32", "afpjax clean fixed point"
STRUCK, SHARED = "afpjax struck", "afpjax struck, one draw for 256 images"
T_FLOAT, T_FIXED = "PyTorch clean float32", "PyTorch clean fixed point"
LOOP, SLICED = "PyTorch loop over bits", "PyTorch bit-sliced"
MRFI, M_FIXED = "MRFI", "MRFI clean fixed point"
#: Who is struck, and whose clean fixed point that is compared with.
STRUCK_RIVALS = {LOOP: T_FIXED, SLICED: T_FIXED, MRFI: M_FIXED}


def measure(effort: Effort) -> Iterator[Row | str]:
    for name in networks.NETWORKS:
        made = ours.make(name)
        _check_evaluator(made)
        checked, notes = agreeing(made)
        yield from notes
        for batch in QUICK if effort.quick else (64, 1):
            contestants = _own(made, batch)
            for group in checked:
                contestants += group(made, batch)
            yield from _rows(name, batch, race(contestants, effort))


def _own(made: ours.Ours, batch: int) -> list[Contestant]:
    shared = [ours.struck(SHARED, made, 256)] if batch == 64 else []
    clean = [ours.clean(made, batch, fixed=fixed) for fixed in (False, True)]
    return [*clean, ours.struck(STRUCK, made, batch), *shared]


def _check_evaluator(made: ours.Ours) -> None:
    """What is timed says what the program behind the rivals' checks says."""
    evaluator = made.evaluator(CHECKED_IMAGES)
    timed = evaluator.evaluate(ours.FAULTS, made.limits(), [ours.CHECKED])[0, 0]
    alone = ours.correct_directly(made, CHECKED_IMAGES, made.everything(), ours.CHECKED)
    check_equal("the evaluator", alone, timed)


def agreeing(made: ours.Ours) -> tuple[list[Group], list[str]]:
    """The groups of rivals whose answers were checked, and why others are left out."""
    groups, notes = [], []
    for check, group in ((_check_torch, _torch), (_check_mrfi, _mrfi)):
        try:
            check(made)
            groups.append(group)
        except NotInstalled as missing:
            notes.append(str(missing))
        except Disagrees as other:
            notes.append(f"{made.network.name}: a rival disagrees and is not timed: {other}")
    return groups, notes


def _torch(made: ours.Ours, batch: int) -> list[Contestant]:
    """PyTorch by hand, in the layout and on the threads that suit it best."""
    plain, sliced, nets = load("plain"), load("sliced"), load("torch_networks")
    found: dict[str, list[Contestant]] = {}
    for how in ("contiguous", "channels_last"):
        net = nets.make(made.network, batch, channels_last=how == "channels_last")
        fixed = plain.fixed(net)
        runs = {
            T_FLOAT: partial(plain.clean_float, net),
            T_FIXED: partial(plain.clean_fixed, fixed),
            LOOP: partial(plain.struck, fixed, plain.loop),
            SLICED: partial(plain.struck, fixed, sliced.sliced),
        }
        for name, run in runs.items():
            found.setdefault(name, []).extend(_ways(name, run, batch, how, side_by_side=True))
    return [faster(each) for each in found.values()]


def _mrfi(made: ours.Ours, batch: int) -> list[Contestant]:
    """MRFI, which keeps struck weights in the network: one pass at a time, NCHW only."""
    plain, nets, mrfi = load("plain"), load("torch_networks"), load("mrfi_rival")
    injected = mrfi.Injected(nets.make(made.network, batch), plain.loop)
    runs = {M_FIXED: injected.clean_fixed, MRFI: injected.struck}
    return [faster(_ways(name, run, batch, "contiguous")) for name, run in runs.items()]


def _ways(
    name: str, run: Callable[[], Any], batch: int, how: str, *, side_by_side: bool = False
) -> list[Contestant]:
    passes = load("passes")
    return passes.ways(name, lambda number: run(), batch, how=how, side_by_side=side_by_side)


def _check_torch(made: ours.Ours) -> None:
    """Our masks give our logits, in either layout; its own masks have the right rate."""
    plain, sliced, nets = load("plain"), load("sliced"), load("torch_networks")
    draw = plain.handed(*ours.masks(made, CHECKED_IMAGES))
    images = networks.images(CHECKED_IMAGES)
    for channels_last in (False, True):
        net = nets.make(made.network, CHECKED_IMAGES, channels_last=channels_last)
        fixed = plain.fixed(net)
        _check("PyTorch", made, partial(plain.struck, fixed, draw), fixed, draw)
        clean = _numpy(partial(plain.clean_fixed, fixed))
        exact = plain.is_exact(fixed, plain.none)
        check_logits(np.asarray(made.codes(images)), clean, exact=exact)
        check_logits(ours.float_logits(made, images), _numpy(partial(plain.clean_float, net)))
    _check_draw(LOOP, plain.loop, plain.RATE)
    _check_draw(SLICED, sliced.sliced, sliced.RATE_MET)


def _check_mrfi(made: ours.Ours) -> None:
    """The same of MRFI, whose masks are those of the loop over bits."""
    plain, nets, mrfi = load("plain"), load("torch_networks"), load("mrfi_rival")
    net = nets.make(made.network, CHECKED_IMAGES)
    draw = plain.handed(*ours.masks(made, CHECKED_IMAGES))
    injected = mrfi.Injected(net, draw)
    _check(MRFI, made, injected.struck, plain.fixed(net), draw)
    check_logits(
        np.asarray(made.codes(networks.images(CHECKED_IMAGES))), _numpy(injected.clean_fixed)
    )


def _check(name: str, made: ours.Ours, run: Callable[[], Any], fixed: Any, draw: Any) -> None:
    """Equal where float32 holds every sum exactly, close elsewhere."""
    exact = load("plain").is_exact(fixed, draw)
    expected = ours.logits(made, networks.images(CHECKED_IMAGES), made.everything())
    try:
        check_logits(expected, _numpy(run), exact=exact)
    except Disagrees as other:
        raise Disagrees(f"{name}: {other}") from other


def _check_draw(name: str, draw: Any, rate: float) -> None:
    count, sites, only_those = load("plain").flips(draw)
    if not only_those:
        raise Disagrees(f"{name}: flips bits that it should not")
    try:
        check_rate(count, sites, rate)
    except Disagrees as other:
        raise Disagrees(f"{name}: {other}") from other


def _numpy(run: Callable[[], Any]) -> np.ndarray:
    import torch  # pyright: ignore[reportMissingImports]

    with torch.inference_mode():
        return run().float().cpu().numpy()


def _rows(name: str, batch: int, times: Mapping[str, Timing]) -> Iterator[Row]:
    where = f"{name}, batch {batch}"
    limits = OVER_CLEAN.get(batch, (None, None))
    limits = limits[name] if isinstance(limits, dict) else limits
    for own in (STRUCK, SHARED):
        if own in times:
            yield _over_clean(f"{own} ÷ {FIXED}, {where}", own, times, limits)
    yield Row(
        f"{FIXED} ÷ {FLOAT} under jit, {where}",
        speedup(times[FIXED], times[FLOAT]),
        f"{number(times[FIXED].rate)} ÷ {number(times[FLOAT].rate)}",
        _rival_ratio(times, [(T_FIXED, T_FLOAT)]),
        *((0.85, 0.95) if batch == 64 else (None, None)),
        figures=_figures(times, FIXED, FLOAT, T_FIXED, T_FLOAT),
    )
    pairs = [(STRUCK, each) for each in STRUCK_RIVALS] + [(FIXED, T_FIXED), (FLOAT, T_FLOAT)]
    for own, rival in pairs:
        if rival in times:
            aimed = OVER_PLAIN[name] if rival == LOOP and batch == 64 else ()
            what = f"{own} ÷ {rival}, {where}"
            yield versus(what, times[own], times[rival], UNIT, *aimed)


def _over_clean(
    what: str, own: str, times: Mapping[str, Timing], limits: tuple[float | None, float | None]
) -> Row:
    return Row(
        what,
        speedup(times[own], times[FIXED]),
        f"{number(times[own].rate)} ÷ {number(times[FIXED].rate)}",
        _rival_ratio(times, list(STRUCK_RIVALS.items())),
        *limits,
        figures=_figures(times, own, FIXED, *STRUCK_RIVALS, T_FIXED, M_FIXED, T_FLOAT),
    )


def _rival_ratio(times: Mapping[str, Timing], pairs: Sequence[tuple[str, str]]) -> str:
    """The best of the rivals' own ratios, and whose it is."""
    ratios = {
        one: speedup(times[one], times[other])
        for one, other in pairs
        if one in times and other in times
    }
    if not ratios:
        return ""
    best = max(ratios, key=lambda one: ratios[one])
    return f"{number(ratios[best])} {best}"


def _figures(times: Mapping[str, Timing], *names: str) -> dict[str, Any]:
    return {name: times[name].figures() for name in names if name in times}
