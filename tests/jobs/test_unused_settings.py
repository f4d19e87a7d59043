"""What a job is said not to use changes nothing in its answer: its settings' `uses`, tried.

Every setting that the table has no use for is changed, all of them in one run.
"""

from typing import Any

import pytest

from afpjax.config import config as configuration
from afpjax.config.config import Config, all_settings, use_of
from afpjax.inputs.errors import InputError
from afpjax.jobs.shared.outcome import result_text
from afpjax.jobs.shared.result import plain

#: Refused beside others, though no job needs them there: what they contradict is said.
CONTRADICTING = {"train.faults", "faults.scope"}
#: Files and tables; another must exist.
FILES = {"model.weights", "data.path", "data.train_path", "campaign.list", "export.source"}
FILES |= {"serve.export", "distribute.importance", "platform.link", "faults.bit_profile"}
OTHERS: dict[str, Any] = {
    "faults.bits": [1, 2],
    "faults.kind": "stuck-at-0",  # others have no budget
    "faults.weight_rate": 0.31,
    "faults.activation_rate": 0.17,
    "faults.layers": ["head"],
    "faults.budget": 3,
    "platform.devices": ["simba", "eyeriss"],
    "campaign.mapping": [0, 1, 0],
    "campaign.rates": [0.3],
    "campaign.sites": ["head/weights/0/3"],
    "campaign.bits": [2],
    "campaign.confidence": 0.9,
    "export.mapping": [1, 0, 1],
    "distribute.weights": [1.0, 2.0, 1.0, 1.0],
    "data.corrupt": "blur:2",
}
SMALL: dict[str, dict[str, Any]] = {
    "partition": {},
    "online": {"online__trace": ["radiation-burst"], "online__seeds": 1, "online__population": 4,
               "online__generations": 2, "online__passes_per_s": 200.0},
    "distribute": {"distribute__devices": [3], "distribute__thresholds": [0.6]},
    "campaign": {"campaign__margin": 0.2, "campaign__images": 16, "campaign__strata": "network"},
    "importance": {"importance__images": 16},
    "profile": {},
    "export": {"export__images": 16},
    "serve": {"export__images": 16, "serve__requests": 8},
}  # fmt: skip
IN_CI = {"campaign", "importance", "profile", "listed"}
MORE = {
    "masks": ("campaign", {"campaign__design": "bernoulli", "campaign__rates": [0.01]}),
    "listed": ("campaign", {"campaign__design": "listed", "campaign__sites": ["head/weights/0/3"]}),
    "flips": ("distribute", {"distribute__flips": True}),
    "thresholds": ("distribute", {"distribute__search": 2}),
    "a placement": ("export", {"export__kind": "placement", "distribute__devices": [3]}),
}
CASES = {job: (job, {}) for job in SMALL} | MORE


def another(config: Config, name: str) -> Any:
    """A value that the setting may have and has not, or None."""
    if name in OTHERS:
        return OTHERS[name]
    section, key = name.split(".")
    now, choices = getattr(getattr(config, section), key), all_settings()[name].choices
    if isinstance(now, bool):
        return not now
    if isinstance(now, str):
        return next((choice for choice in choices if choice not in ("", now)), None)
    if isinstance(now, int):
        return now + 3
    return now * 1.5 or 0.25 if isinstance(now, float) else None


def unused(config: Config) -> dict[str, Any]:
    """Another value for each setting that the job is said not to use."""
    found = {}
    for name in configuration.all_settings():
        use = use_of(name, config.run.job)
        if use is not None and all(when.holds(config) for when in use):
            continue
        if name.startswith("run.") or name in CONTRADICTING | FILES:
            continue
        if (value := another(config, name)) is None:
            continue
        try:  # what must go with another is left
            configuration.load(None, {"run.job": config.run.job, name: value})
        except InputError:
            continue
        found[name] = value
    return found


def answer(result: dict[str, Any]) -> str:
    """Without times, and without what a design or a format merely repeats of its settings."""
    kept = {key: part for key, part in result.items() if key not in ("seconds", "throughput")}
    if result["job"] == "serve":
        kept = {key: kept[key] for key in ("answered", "accuracy", "predicted_interval")}
    return result_text(plain(kept))


@pytest.mark.parametrize(
    "case", [each if each in IN_CI else pytest.param(each, marks=pytest.mark.slow)
             for each in CASES]
)  # fmt: skip
def test_settings_without_a_use_change_no_answer(config_of, outcome_of, case):
    job, changes = CASES[case]
    if job in ("export", "serve"):
        pytest.importorskip("onnxruntime")
    small = SMALL[job] | changes
    others = {n.replace(".", "__"): v for n, v in unused(config_of(run__job=job, **small)).items()}
    assert len(others) > 40
    first, again = (
        {"job": job} | plain(outcome_of(job, **given).result) for given in (small, others | small)
    )
    assert answer(again) == answer(first)
