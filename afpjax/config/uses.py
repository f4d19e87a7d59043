"""Which job uses which setting, and when: what is set on the command line in vain is refused.

An experiment file serves several jobs, so it may hold what one of them has no use for; on the
command line it would be an answer to another question than the one that was asked.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from afpjax.config.sections import JOB_NAMES, Config
from afpjax.config.settings import listed, toml_value
from afpjax.inputs.errors import InputError

__all__ = ["USES", "refuse_unused", "uses_of"]


class When(NamedTuple):
    """A condition on an experiment, and how it is said."""

    words: str
    holds: Callable[[Config], bool]


class Use(NamedTuple):
    """Jobs that use a setting where all conditions hold."""

    jobs: tuple[str, ...]
    when: tuple[When, ...] = ()


def _value(config: Config, name: str) -> Any:
    section, _, key = name.partition(".")
    return getattr(getattr(config, section), key)


def _is(name: str, *values: Any) -> When:
    said = listed(each if isinstance(each, str) else toml_value(each) for each in values)
    return When(f"{name} is {said}", lambda config: _value(config, name) in values)


def _given(name: str) -> When:
    return When(f"{name} is given", lambda config: bool(_value(config, name)))


def _empty(name: str) -> When:
    return When(f"{name} is empty", lambda config: not _value(config, name))


def _has(name: str, *values: str) -> When:
    return When(
        f"{name} names {listed(values)}", lambda config: bool({*values} & {*_value(config, name)})
    )


def _use(*jobs: str, when: Iterable[When] = ()) -> tuple[Use, ...]:
    return (Use(jobs, tuple(when)),)


_P, _O, _D, _C, _I, _F, _E, _S = JOB_NAMES
_ZOO = When(
    "model.name is of the zoo",
    lambda config: ":" not in config.model.name and not config.model.name.endswith(".onnx"),
)
_TRAINS = When(
    "the network is trained here (a name of the zoo without model.weights, or train.faults)",
    lambda config: _ZOO.holds(config) and (not config.model.weights or config.train.faults),
)
_LEARNS_FAULTS = _is("train.faults", True)
_FIXED = _is("format.kind", "fixed")
_CALIBRATED = _is("format.scale", "tensor", "channel")
_UNEXPORTED = _empty("serve.export")  # an export brings its own settings
_NEW = _empty("export.source")
_MAPPED = _is("export.kind", "mapping")
_PLACED = _is("export.kind", "placement")
_SEARCHED = (_NEW, _MAPPED, _empty("export.mapping"))
_MASKS = _is("campaign.design", "bernoulli")
_SAMPLED = _is("campaign.design", "single", "neyman")
_UNLISTED = _is("campaign.design", "single", "neyman", "exhaustive", "bernoulli")
_FLIPS = _is("distribute.flips", True)
_FOUND = When("distribute.search is not 0", lambda config: config.distribute.search != 0)
_UNSCORED = _empty("distribute.importance")
_PACKETS = When(
    "faults.kind is lost or lost-last, or faults.link is zero, last or resent",
    lambda config: config.faults.kind in ("lost", "lost-last") or config.faults.link != "bits",
)

_EVERY = _use(_P, _O, _D, _C, _I, _F, _E) + _use(_S, when=[_UNEXPORTED])
_IMAGES = _use(_P, _O, _D, _C, _I, _E) + _use(_S, when=[_UNEXPORTED])
_NUMBERS = _use(_P, _O, _D, _C, _E) + _use(_S, when=[_UNEXPORTED])
_SEARCHES = _use(_P, _O) + _use(_E, when=_SEARCHED) + _use(_S, when=[_UNEXPORTED, *_SEARCHED])
# A mapping that is served is searched for again when a device is lost.
_AGAIN = _use(_S, when=[_UNEXPORTED, _MAPPED])
_TRAINED = _use(_I, when=[_ZOO, _LEARNS_FAULTS])
_FAULTS = _SEARCHES + _AGAIN + _use(_C) + _use(_D, when=[_FLIPS]) + _TRAINED
_RATES = _SEARCHES + _AGAIN + _use(_C, when=[_MASKS]) + _use(_D, when=[_FLIPS]) + _TRAINED
_PLACES = _use(_D) + _use(_E, when=[_NEW, _PLACED]) + _use(_S, when=[_UNEXPORTED, _NEW, _PLACED])
_SCORES = (
    _use(_I)
    + _use(_D, when=[_UNSCORED])
    + _use(_E, when=[_NEW, _PLACED, _UNSCORED])
    + _use(_S, when=[_UNEXPORTED, _NEW, _PLACED, _UNSCORED])
)


def _also(uses: Iterable[Use], *when: When) -> tuple[Use, ...]:
    return tuple(Use(use.jobs, (*use.when, *when)) for use in uses)


#: Section, or section.key where it is not as its section -> its uses; any of them will do.
USES: dict[str, tuple[Use, ...]] = {
    "run": _use(*JOB_NAMES),
    "run.memory_gb": _use(_P, _O, _D, _C, _E, _S),
    "run.cluster": _use(_P, _O, _D, _C, _E, _S),
    "run.workers": _use(_P, _O, _D, _C, _E, when=[_given("run.cluster")]),
    "model": _EVERY,
    "model.name": _use(*JOB_NAMES),
    "model.weights": _also(_IMAGES, _ZOO),
    "model.width": _also(_EVERY, _ZOO),
    "train": _also(_IMAGES, _TRAINS),
    "train.faults": _also(_IMAGES, _ZOO),
    "train.epochs": _also(_IMAGES, _ZOO, _empty("model.weights")),
    "train.learning_rate": _also(_IMAGES, _ZOO, _empty("model.weights")),
    "train.fault_epochs": _also(_IMAGES, _ZOO, _LEARNS_FAULTS),
    "train.fault_learning_rate": _also(_IMAGES, _ZOO, _LEARNS_FAULTS),
    "data": _IMAGES,
    "data.path": _also(
        _IMAGES, _is("data.name", "npz", "cifar10", "tiny-imagenet", "imagenet", "folder")
    ),
    "data.train_path": _also(_IMAGES, _is("data.name", "npz")),
    "data.corrupt": _also(_IMAGES, _is("data.name", "tiny-imagenet", "imagenet", "folder")),
    "data.calibration": _also(_NUMBERS + _TRAINED, _FIXED, _CALIBRATED),
    "format": _NUMBERS + _use(_F) + _TRAINED,
    "format.bits": _also(_NUMBERS + _use(_F) + _TRAINED, _FIXED),
    "format.frac": _also(_NUMBERS + _TRAINED, _FIXED, _is("format.scale", "global")),
    "format.scale": _also(_NUMBERS + _TRAINED, _FIXED),
    "format.step": _also(_NUMBERS + _TRAINED, _FIXED, _CALIBRATED),
    "faults": _FAULTS,
    "faults.strategy": _SEARCHES,
    "faults.trials": _SEARCHES + _AGAIN,
    "faults.bits": _RATES,
    "faults.bit_profile": _RATES,
    "faults.weight_rate": _RATES,
    "faults.activation_rate": _RATES,
    "faults.budget": _RATES,
    "faults.generator": _RATES,
    "faults.link": _FAULTS + _use(_D, _F),
    "faults.link_rate": _RATES + _use(_D, _F, when=[_is("faults.link", "resent")]),
    "faults.layers": _also(_use(_C), _UNLISTED) + tuple(u for u in _FAULTS if u.jobs != (_C,)),
    "faults.burst": _also(_FAULTS, _is("faults.kind", "burst")),
    "faults.packet": _also(_FAULTS, _PACKETS),
    "platform": _SEARCHES + _use(_F) + _AGAIN,
    "platform.devices": _use(_P, _O, _F)
    + _use(_E, when=[_NEW, _MAPPED])
    + _use(_S, when=[_UNEXPORTED, _NEW, _MAPPED])
    + _use(_C, when=[_MASKS])
    + _use(_D, when=[_FLIPS])
    + _TRAINED,
    "platform.link": _SEARCHES + _AGAIN + _use(_C, _D, _F),
    "platform.batch": _SEARCHES + _use(_D, _F) + _use(_S, when=[_UNEXPORTED]),
    "search": _SEARCHES,
    "search.images": _IMAGES,
    "search.held_out": _use(_P, _O, _D, _E) + _use(_S, when=[_UNEXPORTED]),
    "search.population": _SEARCHES + _use(_D, when=[_FOUND]),
    "search.generations": _SEARCHES + _use(_D, when=[_FOUND]),
    "search.effort": _SEARCHES + _use(_D, when=[_FOUND]),
    "search.final_trials": _SEARCHES + _AGAIN + _use(_D, when=[_FLIPS]),
    "campaign": _use(_C),
    "campaign.targets": _use(_C, when=[_UNLISTED]),
    "campaign.strata": _use(_C, when=[_UNLISTED]),
    "campaign.bits": _use(_C, when=[_is("campaign.design", "single", "neyman", "exhaustive")]),
    "campaign.count": _use(_C, when=[_SAMPLED]),
    "campaign.margin": _use(_C, when=[_is("campaign.design", "single", "neyman", "bernoulli")]),
    "campaign.interval": _use(_C, when=[_is("campaign.design", "single", "neyman", "exhaustive")]),
    "campaign.sequential": _use(_C, when=[_is("campaign.design", "single")]),
    "campaign.trials": _use(_C, when=[_is("campaign.design", "single", "neyman", "bernoulli")]),
    "campaign.rates": _use(_C, when=[_MASKS]),
    "campaign.mapping": _use(_C, when=[_has("campaign.targets", "link")]),
    "campaign.sites": _use(_C, when=[_is("campaign.design", "listed"), _empty("campaign.list")]),
    "campaign.list": _use(_C, when=[_is("campaign.design", "listed")]),
    "importance": _SCORES,
    "importance.sample": _use(_I),
    "importance.sample_images": _use(_I),
    "distribute": _use(_D),
    **{
        f"distribute.{key}": _PLACES
        for key in ("devices", "thresholds", "scores", "normalise", "classifier", "importance")
    },
    "distribute.substitute": _PLACES,
    "distribute.board": _PLACES[:1] + _PLACES[2:],
    "distribute.link": _PLACES[:1] + _PLACES[2:],
    "distribute.stream": _PLACES[:1] + _PLACES[2:],
    "distribute.objective": _use(_D, when=[_FOUND]),
    "distribute.weights": _use(_D, when=[_FOUND, _is("distribute.objective", "weighted")]),
    "online": _use(_O),
    **{
        f"online.{key}": _use(_O) + _AGAIN
        for key in (
            "budget_ms",
            "passes_per_s",
            "population",
            "generations",
            "allow_latency",
            "allow_energy",
        )
    },
    "export": _use(_E) + _use(_S, when=[_UNEXPORTED]),
    "export.kind": _use(_E, when=[_NEW]) + _use(_S, when=[_UNEXPORTED, _NEW]),
    "export.mapping": _use(_E, when=[_NEW, _MAPPED]) + _use(_S, when=[_UNEXPORTED, _NEW, _MAPPED]),
    "export.method": _PLACES[1:],
    "serve": _use(_S),
    "serve.listen_s": _use(_S, when=[_given("serve.port")]),
}


def uses_of(name: str) -> tuple[Use, ...]:
    """The uses of the setting `section.key`."""
    return USES.get(name) or USES[name.partition(".")[0]]


def refuse_unused(config: Config, names: Iterable[str]) -> None:
    """Raise `InputError` for the first of the settings `names` that the experiment has no use for.

    It says which jobs use the setting, or what must hold for this one to do so.
    """
    for name in names:
        own = [use for use in uses_of(name) if config.run.job in use.jobs]
        if any(all(when.holds(config) for when in use.when) for use in own):
            continue
        if not own:
            jobs = [job for job in JOB_NAMES if any(job in use.jobs for use in uses_of(name))]
            raise InputError(
                f"--{name}: job {config.run.job} does not use it, {listed(jobs)} "
                f"{'do' if len(jobs) > 1 else 'does'}; leave it out"
            )
        when = min((_missing(use, config) for use in own), key=len)
        raise InputError(
            f"--{name}: job {config.run.job} uses it only where "
            f"{' and '.join(each.words for each in when)}; leave it out, or set that too"
        )


def _missing(use: Use, config: Config) -> list[When]:
    return [when for when in use.when if not when.holds(config)]
