"""What the requests and devices of a service come to, once it has ended."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from afpjax.deploy.service.requests import ImageRequest, RequestState
from afpjax.deploy.service.service import DeviceLoss, Service
from afpjax.jobs.serve.result import (
    DeviceEnd,
    Histogram,
    HttpResult,
    Latency,
    LossResult,
    Percentiles,
    Refusal,
    ServedDevice,
    Throughput,
    Timeline,
)
from afpjax.jobs.shared.result import Estimate
from afpjax.statistics.intervals import wilson

_BINS = 40  # of the run's time, and of latencies


def answered(requests: Sequence[ImageRequest]) -> list[ImageRequest]:
    return [request for request in requests if request.state is RequestState.ANSWERED]


def percentiles(answers: Sequence[ImageRequest]) -> Percentiles:
    latencies = [request.latency_ms for request in answers]
    return Percentiles(*(float(np.percentile(latencies, level)) for level in (50, 95, 99)))


def accuracy(answers: Sequence[ImageRequest], labels: Int[np.ndarray, " N"]) -> Estimate:
    """The share of answers that are right; `labels` are those of the stream's images."""
    right = sum(is_right(request, labels) for request in answers)
    return Estimate(right / len(answers), *wilson(right, len(answers)))


def is_right(request: ImageRequest, labels: Int[np.ndarray, " N"]) -> bool:
    """Whether an answer has the image's label as its class."""
    assert request.logits is not None
    return int(np.argmax(request.logits)) == int(labels[request.index])


def refusals(requests: Sequence[ImageRequest]) -> list[Refusal]:
    counts = Counter(r.reason for r in requests if r.state is RequestState.REFUSED)
    return [Refusal(reason, count) for reason, count in sorted(counts.items())]


def over_http(requests: Sequence[ImageRequest]) -> HttpResult | None:
    """Those that are not of the stream, if there are any."""
    if not requests:
        return None
    return HttpResult(len(requests), len(answered(requests)), refusals(requests))


def seconds(stream: Sequence[ImageRequest]) -> float:
    """From the first question to the last end."""
    return max(r.ended for r in stream) - min(r.asked for r in stream)


def devices(
    service: Service, model_bytes: Mapping[str, int], limit_bytes: Mapping[str, float]
) -> list[ServedDevice]:
    return [
        ServedDevice(
            worker.name,
            worker.memory_mb,
            model_bytes.get(worker.name, 0) / 1e6,
            limit_bytes[worker.name] / 1e6,
            None if worker.killed_at is None else worker.killed_at - service.began,
        )
        for worker in service.pool.all
    ]


def throughput(service: Service, stream: Sequence[ImageRequest]) -> Throughput:
    """The serving's times, those of each loss, and what else of devices is measured."""
    latencies = [request.latency_ms for request in answered(stream)]
    counts, edges = np.histogram(latencies, _BINS)
    histogram = Histogram(counts.tolist(), edges.tolist())
    ends = [
        DeviceEnd(worker.name, worker.base_mb)
        if worker.lost_at is None
        else DeviceEnd(worker.name, worker.base_mb, worker.lost_at - service.began, worker.how)
        for worker in service.pool.all
    ]
    return Throughput(
        serving_s=seconds(stream),
        redone=sum(request.attempts > 1 for request in stream),
        latency_ms=Latency(float(np.mean(latencies)), float(np.max(latencies)), histogram),
        timeline=_timeline(service, stream),
        devices=ends,
        losses=[_loss(service, loss) for loss in service.losses],
    )


def _timeline(service: Service, stream: Sequence[ImageRequest]) -> Timeline:
    ends = [
        [request.ended - service.began for request in stream if request.state is state]
        for state in (RequestState.ANSWERED, RequestState.REFUSED)
    ]
    span = (0.0, max(max(times, default=0.0) for times in ends))
    counts = (np.histogram(times, _BINS, span)[0].tolist() for times in ends)
    return Timeline(span[1] / _BINS, *counts)


def _loss(service: Service, loss: DeviceLoss) -> LossResult:
    worker = service.pool.all[loss.device]
    noticed = None
    if worker.killed_at is not None:
        noticed = 1e3 * (loss.at_s - (worker.killed_at - service.began))
    later = [
        request.ended - service.began
        for request in answered(service.queue.all)
        if set(loss.lost) <= set(request.lost)
    ]
    return LossResult(
        device=worker.name,
        how=loss.how,
        at_s=loss.at_s,
        asked=loss.asked,
        redone=loss.redone,
        lost=[service.pool.all[device].name for device in loss.lost],
        noticed_ms=noticed,
        back_ms=1e3 * (min(later) - loss.at_s) if later else None,
    )
