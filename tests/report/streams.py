"""A result of job `online`, made by hand: two environments, two streams each."""

from typing import Any

Record = dict[str, Any]
POLICIES = ("never", "online", "safest", "stored", "oracle")
#: Share of the time above theta, under each policy.
ABOVE = {"never": 0.6, "online": 0.15, "safest": 0.2, "stored": 0.3, "oracle": 0.05}
DEVICES = ("a", "b")
LAYERS = ("stem", "body", "head")
FIRST, LATER = [0, 0, 1], [1, 1, 0]
STEPS = 40
STRUCK, MOVED, BACK = 10, 14, 30  # steps: trouble begins, another mapping runs, it is reviewed


def streams(traces: int = 2, seeds: int = 2, policies: tuple[str, ...] = POLICIES) -> Record:
    names = ["burst", "ageing"][:traces]
    every = [*names, "all"] if traces > 1 else names
    return {
        "job": "online",
        "version": "0.6.0",
        "seed": 0,
        "model": {"name": "toy", "layers": [{"name": name, "kind": "conv"} for name in LAYERS]},
        "devices": list(DEVICES),
        "data": {"name": "digits", "held_out_images": 256},
        "clean": {"accuracy": 0.98, "images": 256},
        "theta": 0.1,
        "stream": {
            "batch": 32,
            "fps": 30.0,
            "seeds": seeds,
            "canaries": 8,
            "pool": 64,
            "labels": True,
            "steps_per_hour": 3375.0,
        },
        "watch": {
            "limit": 0.102,
            "alarm": 33750.0,
            "false_alarms_per_hour": 0.1,
            "bound": "mean time between false alarms at least `alarm` batches",
        },
        "searches": {"budget_ms": 2e3, "passes_per_s": 5e3, "generations": 6, "population": 16},
        "first": {
            "mapping": FIRST,
            "latency_ms": 0.5,
            "energy_mj": 1.25,
            "accuracy": 0.93,
            "accuracy_interval": [0.9, 0.95],
            "accuracy_drop": 0.05,
        },
        "traces": [{"trace": n, "description": f"of {n}", "steps": STEPS} for n in names],
        "events": [event(step) for step in range(STEPS)],
        "timelines": [row for n in names for policy in policies for row in timeline(n, policy)],
        "policies": [policy_row(n, policy, seeds) for n in every for policy in policies],
        "gains": [gain(n, over, seeds) for n in every for over in policies if over != "online"],
    }


def accuracy_at(step: int) -> float:
    """The true accuracy: trouble until another mapping runs."""
    return 0.3 if STRUCK <= step < MOVED else 0.93


def event(step: int) -> Record:
    struck = STRUCK <= step < BACK
    accuracy = accuracy_at(step)
    rates = [0.4 if struck else 0.02, 0.2]
    row = {
        "step": step,
        "rates": {"weight": rates, "activation": rates},
        "latency": [1.0, 1.0],
        "energy": [1.0, 1.0],
        "present": [True, True],
        "mapping": FIRST if step < MOVED else LATER,
        "accuracy": accuracy,
        "accuracy_drop": 0.98 - accuracy,
        "accuracy_observed": accuracy - 0.02,
        "accuracy_observed_interval": [accuracy - 0.2, min(accuracy + 0.1, 0.98)],
        "evidence": 40000.0 if step == MOVED - 2 else 0.75,
        "latency_ms": 0.5 if step < MOVED else 0.625,
        "energy_mj": 1.25,
        "repartitioned": step == MOVED,
    }
    return row | decisions().get(step, {})


def decisions() -> dict[int, Record]:
    """What was decided, by step: with rates and an expectation, or without."""
    estimated = [
        {"device": "a", "rate": 0.35, "rate_interval": [0.2, 0.5]},
        {"device": "b", "rate": 0.2, "rate_interval": [0.15, 0.3]},
    ]
    alarm = {"reason": "accuracy", "cut": False, "expected_drop": 0.043, "estimated": estimated}
    return {
        MOVED - 2: alarm,
        MOVED + 3: {"reason": "search again", "cut": True, "expected_drop": -0.001},
        BACK: {"reason": "review", "cut": False, "estimated": estimated[1:]},
    }


def timeline(trace: str, policy: str) -> list[Record]:
    """Rows where something changes, and the last step's."""
    saved = policy != "never"
    rows = [(0, 0.93, 0.2, False), (STRUCK, 0.3, 0.4, False)]
    rows += [(MOVED, 0.91, 0.4, True)] if saved else []
    rows += [(BACK, 0.93, 0.2, False), (STEPS - 1, 0.93, 0.2, False)]
    return [
        {
            "trace": trace,
            "policy": policy,
            "step": step,
            "accuracy": accuracy,
            "accuracy_drop": 0.98 - accuracy,
            "latency_ms": 0.625 if saved and step >= MOVED else 0.5,
            "energy_mj": 1.25,
            "worst_rate": worst,
            "switched": switched,
        }
        for step, accuracy, worst, switched in rows
    ]


def policy_row(trace: str, policy: str, seeds: int) -> Record:
    above = ABOVE[policy]
    values = {
        "accuracy": 0.95 - above / 2,
        "above": above,
        "latency_ms": 0.5,
        "energy_mj": 1.25,
        "switches": 0.0 if policy == "never" else 2.5,
    }
    row: Record = {"trace": trace, "policy": policy, "seeds": seeds, "alarms": 1.0, "searches": 2.0}
    return row | around(values, seeds)


def gain(trace: str, over: str, seeds: int) -> Record:
    less = ABOVE["online"] - ABOVE[over]
    return {"trace": trace, "over": over} | around({"accuracy": -less / 2, "above": less}, seeds)


def around(values: dict[str, float], seeds: int) -> Record:
    """Means, with intervals where several streams tell them."""
    row: Record = dict(values)
    if seeds > 1:
        row |= {f"{name}_interval": [v - 0.04, v + 0.04] for name, v in values.items()}
    return row
