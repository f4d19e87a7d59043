"""What job `serve` has measured: how requests ended and how fast, and what became of devices.

`fps`, the percentiles of `latency_ms`, `memory_mb` and `killed_at` stand where the contract has
them and are never twice the same; what else is measured of time and memory is `throughput`. Where
devices die or images are late, time also decides which images that meets, and the counts of it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from afpjax.deploy.members import Member
from afpjax.deploy.requests import Request, State
from afpjax.deploy.service import Service
from afpjax.jobs.shared.records import Record
from afpjax.statistics.intervals import wilson

_BINS = 40  # of the run's time, and of latencies
_PERCENTILES = (50, 95, 99)


def requests(service: Service, labels: Int[np.ndarray, " N"]) -> Record:
    """Counts, speed and accuracy of the images of the stream; `labels` are theirs.

    `fps` counts answers, from the first question to the last end.
    """
    stream = [each for each in service.ledger.every if each.place >= 0]
    others = [each for each in service.ledger.every if each.place < 0]
    answered = [each for each in stream if each.state is State.ANSWERED]
    right = sum(is_right(each, labels) for each in answered)
    found: Record = {
        "requests": len(stream),
        "answered": len(answered),
        "refused": len(stream) - len(answered),
        "fps": len(answered) / _seconds(stream),
        "latency_ms": {
            f"p{level}": float(np.percentile(_latencies(answered), level)) for level in _PERCENTILES
        },
        "accuracy": right / len(answered),
        "accuracy_interval": list(wilson(right, len(answered))),
        "refusals": _refusals(stream),
    }
    if others:
        found["http"] = {
            "requests": len(others),
            "answered": sum(each.state is State.ANSWERED for each in others),
            "refusals": _refusals(others),
        }
    return found


def throughput(service: Service) -> Record:
    """The serving's times, those of each loss, and what else of devices is measured."""
    stream = [each for each in service.ledger.every if each.place >= 0]
    answered = [each for each in stream if each.state is State.ANSWERED]
    return {
        "serving_s": _seconds(stream),
        "redone": sum(each.attempts > 1 for each in stream),
        "latency_ms": _latency(_latencies(answered)),
        "timeline": _timeline(service, stream),
        "devices": [_end(service, member) for member in service.members.all],
        "losses": _losses(service),
    }


def is_right(request: Request, labels: Int[np.ndarray, " N"]) -> bool:
    """Whether an answer has the image's label as its class."""
    assert request.logits is not None
    return int(np.argmax(request.logits)) == int(labels[request.place])


def devices(
    service: Service, model_bytes: Mapping[str, int], limit_bytes: Mapping[str, float]
) -> list[Record]:
    """Each device: memory of its process, and what its model was to take; when it was killed."""
    rows = []
    for member in service.members.all:
        row: Record = {
            "device": member.name,
            "memory_mb": member.memory_mb,
            "model_mb": model_bytes.get(member.name, 0) / 1e6,
            "limit_mb": limit_bytes[member.name] / 1e6,
        }
        if member.killed_at is not None:
            row["killed_at"] = member.killed_at - service.began
        rows.append(row)
    return rows


def _end(service: Service, member: Member) -> Record:
    row: Record = {"device": member.name, "base_mb": member.base_mb}
    if member.lost_at is None:
        return row
    return row | {"lost_at": member.lost_at - service.began, "how": member.how}


def _losses(service: Service) -> list[Record]:
    """Each loss: how and when it was noticed, and when the next answer came without the device."""
    names, rows = [each.name for each in service.members.all], []
    every = service.ledger.every
    for loss in service.losses:
        member = service.members.all[loss.device]
        later = [
            each.ended - service.began
            for each in every
            if each.state is State.ANSWERED and set(loss.lost) <= set(each.lost)
        ]
        row: Record = {
            "device": member.name,
            "how": loss.how,
            "at_s": loss.at_s,
            "asked": loss.asked,
            "redone": loss.redone,
            "lost": [names[device] for device in loss.lost],
        }
        if member.killed_at is not None:
            row["noticed_ms"] = 1e3 * (loss.at_s - (member.killed_at - service.began))
        if later:
            row["back_ms"] = 1e3 * (min(later) - loss.at_s)
        rows.append(row)
    return rows


def _seconds(stream: Sequence[Request]) -> float:
    """From the first question to the last end."""
    return max(each.ended for each in stream) - min(each.asked for each in stream)


def _latencies(answered: Sequence[Request]) -> list[float]:
    return [each.latency_ms for each in answered]


def _latency(values: Sequence[float]) -> Record:
    """How many answers took how long: `counts` between `edges`."""
    counts, edges = np.histogram(values, _BINS)
    return {
        "mean": float(np.mean(values)),
        "max": float(np.max(values)),
        "histogram": {"counts": counts.tolist(), "edges": edges.tolist()},
    }


def _refusals(requests: Sequence[Request]) -> list[Record]:
    counts = Counter(each.reason for each in requests if each.state is State.REFUSED)
    return [{"reason": reason, "count": count} for reason, count in sorted(counts.items())]


def _timeline(service: Service, stream: Sequence[Request]) -> Record:
    """Answers and refusals in equal parts of the run's time."""
    ends = {
        state: [each.ended - service.began for each in stream if each.state is state]
        for state in (State.ANSWERED, State.REFUSED)
    }
    span = (0.0, max(max(times, default=0.0) for times in ends.values()))
    counts = {str(state): np.histogram(times, _BINS, span)[0] for state, times in ends.items()}
    return {"step_s": span[1] / _BINS, **{name: each.tolist() for name, each in counts.items()}}
