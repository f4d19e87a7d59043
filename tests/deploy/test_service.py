"""Devices that die under load: no request is lost, no answer is wrong, no process stays."""

import dataclasses
import os
import signal
import threading
import time

import numpy as np
import psutil
import pytest

from afpjax.deploy.service.kills import Kill, planned_kills
from afpjax.deploy.service.plan import OutOfMemory, ServedExport
from afpjax.deploy.service.ray_cluster import ray_cluster
from afpjax.deploy.service.requests import (
    ALL_DEAD,
    DEADLINE,
    DEVICE_ERROR,
    ENDED,
    NO_MAPPING,
    NO_ROOM,
    RequestState,
)
from afpjax.deploy.service.service import Service, ServiceLimits
from afpjax.deploy.service.worker import MissingTensor, PartFiles, PartRunner
from afpjax.inputs.errors import InputError

from . import byhand

pytest.importorskip("ray", reason="Ray is not installed: pip install '.[serve]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install '.[serve]'")

LIMITS = ServiceLimits(in_flight=8, heartbeat_s=0.2, timeout_s=3.0, deadline_s=30.0)


@pytest.fixture(scope="module")
def ray():
    """A cluster of this module's own, of which nothing is left afterwards."""
    before = set(psutil.Process().children(recursive=True))
    with ray_cluster() as ray:
        yield ray
    _gone, alive = psutil.wait_procs(
        set(psutil.Process().children(recursive=True)) - before, timeout=10
    )
    assert not alive


def pids(service):
    return [worker.pid for worker in service.pool.all]


def gone(numbers, within=5.0):
    until = time.monotonic() + within
    while time.monotonic() < until and any(map(psutil.pid_exists, numbers)):
        time.sleep(0.02)
    return not any(map(psutil.pid_exists, numbers))


def check(service, images, shared=True):
    """Every image ended once; every answer is that of the devices that were left."""
    every = service.queue.all
    assert sorted(each.index for each in every if each.index >= 0) == list(range(len(images)))
    assert {each.state for each in every} <= {RequestState.ANSWERED, RequestState.REFUSED}
    for each in every:
        if each.state is RequestState.ANSWERED:
            expected = byhand.answer(each.image, each.lost, shared=shared)
            np.testing.assert_allclose(each.logits, expected, rtol=1e-4, atol=1e-4)
            assert not each.reason
        else:
            assert each.reason
    return [each for each in every if each.state is RequestState.ANSWERED]


def serve(ray, exported, count=60, kills=(), limits=LIMITS, replan=None):
    images = byhand.images(count)
    with Service(ray, exported, limits, replan) as service:
        service.start()
        numbers = pids(service)
        service.run(images, kills)
    assert gone(numbers)
    return service, check(service, images, shared=exported.manifest.kind == "placement")


@pytest.mark.parametrize("batch", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_placement_goes_on_with_the_neurons_that_are_left_until_none_are(ray, batch):
    """Batches are full while the stream has more: each takes its time however few its images."""
    sizes = []

    class Counted(ServedExport):
        def network_input(self, images):
            sizes.append(len(images))
            return super().network_input(images)

    made = byhand.placement(batch)
    kills = [Kill(30, 1), Kill(50, 3), Kill(70, 0), Kill(70, 2)]
    exported = Counted(made.manifest, made.files, made.names)
    service, answered = serve(ray, exported, 90, kills, LIMITS._replace(in_flight=9))
    assert sizes[: 21 // batch] == [batch] * (21 // batch)
    assert 50 <= len(answered) <= 70 and any(each.attempts > 1 for each in answered)
    assert {each.reason for each in service.queue.all} == {"", ALL_DEAD}
    assert {each.lost for each in answered} >= {(), (1,), (1, 3)}
    assert [loss.lost for loss in service.losses][:2] == [(1,), (1, 3)]
    assert all(loss.how == "killed" for loss in service.losses)


class Forgetful(ServedExport):
    """Device b misses what it was sent, until its third task of the second layer."""

    def part(self, device):
        part = super().part(device)
        assert part is not None
        return ForgetfulPart(*vars(part).values()) if device == 1 else part


class ForgetfulPart(PartFiles):
    def open(self):
        return ForgetfulRunner(self.manifest, super().open().part)


class ForgetfulRunner(PartRunner):
    left = 2

    def __call__(self, run, values):
        if run.task == "two/b" and self.left:
            self.left -= 1
            raise MissingTensor("pieces of one")
        return super().__call__(run, values)


def test_what_a_device_misses_is_worked_out_again_and_no_error(ray):
    """The error reaches the logits through tasks of other devices that never ran."""
    made = byhand.placement()
    service, answered = serve(ray, Forgetful(made.manifest, made.files, made.names), 12)
    assert len(answered) == 12 and not service.losses
    assert sum(each.attempts > 1 for each in answered) == 2


@pytest.mark.slow
def test_a_mapping_whose_idle_device_dies_goes_on_as_it_is(ray):
    service, answered = serve(ray, byhand.mapping("aba", 2), 400, kills=[Kill(10, 3)])
    assert len(answered) == 400 and [loss.device for loss in service.losses] == [3]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OutOfMemory("too small"), NO_ROOM),
        pytest.param(InputError("nothing within limits"), NO_MAPPING, marks=pytest.mark.slow),
    ],
)
def test_a_mapping_is_made_anew_for_the_devices_that_are_left(ray, error, reason):
    """And where there is none for them, requests are refused by name."""
    asked = []

    def replan(names):
        asked.append(names)
        if len(names) < 3:
            raise error
        return byhand.mapping([names[0], names[-1], names[0]])

    kills = [Kill(20, 1), Kill(40, 0)]
    service, answered = serve(ray, byhand.mapping("abc"), kills=kills, replan=replan)
    assert asked[0] == ("a", "c", "d") and asked[-1] == ("c", "d") and len(service.losses) == 2
    assert 30 <= len(answered) < 50 and any(each.attempts > 1 for each in answered)
    assert {each.reason for each in service.queue.all} == {"", reason}
    assert service.deployment.details == str(error)


@pytest.mark.slow
def test_a_device_that_dies_while_a_mapping_is_made_is_not_in_the_next(ray):
    asked, members = [], []

    def replan(names):
        asked.append(names)
        if len(asked) == 1:
            members[0].process.kill()
            while members[0].alive:
                time.sleep(0.01)
        return byhand.mapping([names[0]] * 3)

    images = byhand.images(30)
    with Service(ray, byhand.mapping("abc"), LIMITS, replan) as service:
        members += service.pool.all
        service.start()
        service.run(images, [Kill(10, 1)])
    assert len(check(service, images, shared=False)) == 30
    assert asked == [("a", "c", "d"), ("c", "d")]


@pytest.mark.slow
def test_a_mapping_whose_devices_all_die_refuses_what_is_left_at_once(ray):
    exported = byhand.mapping("abc")
    kills = [Kill(30, device) for device in range(4)]
    service, answered = serve(ray, exported, 60, kills, replan=lambda names: exported)
    assert 20 <= len(answered) <= 30
    assert {each.reason for each in service.queue.all} == {"", ALL_DEAD}


def test_a_silent_device_is_lost_and_killed(ray):
    limits = LIMITS._replace(timeout_s=1.0)
    images = byhand.images(40)
    with Service(ray, byhand.placement(), limits) as service:
        service.start()
        stopped = service.pool.all[2]
        os.kill(stopped.pid, signal.SIGSTOP)
        service.run(images)
        assert gone([stopped.pid])
    assert len(check(service, images)) == 40
    (loss,) = service.losses
    assert loss.how == "silent" and 0.9 < loss.at_s < 4.0


@pytest.mark.slow
def test_a_device_that_takes_its_time_is_not_lost(ray):
    """Silence counts from a question, and not while nobody listens."""
    limits = LIMITS._replace(timeout_s=0.5, heartbeat_s=0.1)
    with Service(ray, byhand.placement(), limits) as service:
        service.start()
        service._wait(others=True)  # hearts have been asked
        time.sleep(1.0)  # this process is busy
        service.run(byhand.images(10))
    assert not service.losses and service.queue.count(RequestState.ANSWERED) == 10


@pytest.mark.slow
def test_what_is_overdue_is_refused_and_nothing_waits_for_ever(ray):
    limits = LIMITS._replace(timeout_s=60.0, deadline_s=0.5)
    with Service(ray, byhand.placement(), limits) as service:
        service.start()
        os.kill(service.pool.all[0].pid, signal.SIGSTOP)
        began = time.monotonic()
        service.run(byhand.images(16))
        assert time.monotonic() - began < 6
        numbers = pids(service)
    assert {each.reason for each in service.queue.all} == {DEADLINE}
    assert gone(numbers)


@pytest.mark.slow
def test_an_error_in_a_device_refuses_its_images_by_name(ray):
    made = byhand.placement()
    pieces = dict(made.manifest.pieces)
    pieces["one"] = pieces["one"].model_copy(update={"axis": 0})
    broken = made.manifest.model_copy(update={"pieces": pieces})
    with Service(ray, dataclasses.replace(made, manifest=broken), LIMITS) as service:
        service.start()
        service.run(byhand.images(3))
    reasons = {each.reason for each in service.queue.all}
    assert all(reason.startswith(f"{DEVICE_ERROR}: ") for reason in reasons), reasons
    assert not service.losses


@pytest.mark.slow
def test_others_ask_while_the_stream_runs_and_after_it(ray):
    asked = []

    def others():
        for image in byhand.images(20, seed=2):
            asked.append(service.ask(image))
            time.sleep(0.05)

    with Service(ray, byhand.placement(), LIMITS) as service:
        service.start()
        thread = threading.Thread(target=others)
        thread.start()
        service.run(byhand.images(10), [Kill(5, 0)], listen_s=1.5)
        thread.join()
        assert all(each.state is RequestState.ANSWERED for each in asked)
        check(service, byhand.images(10))
        status = service.status()
    assert status["answered"] == 30 and status["waiting"] == status["under_way"] == 0
    assert [each["alive"] for each in status["devices"]] == [False, True, True, True]
    assert service.ask(byhand.images(1)[0]).reason == ENDED


def test_a_part_that_cannot_be_loaded_is_an_error_before_anything_is_asked(ray):
    good = byhand.placement()
    files = {**good.files, "b.onnx": b"no model"}
    bad = type(good)(good.manifest, files, good.names)
    with (
        Service(ray, bad, LIMITS) as service,
        pytest.raises(InputError, match=f"serve: {DEVICE_ERROR}: "),
    ):
        service.start()


def test_a_part_larger_than_its_device_is_refused_with_figures():
    limits = dict.fromkeys(byhand.NAMES, 4e6) | {"c": 1000.0}
    exported = byhand.placement()
    said = r"serve\.memory_mb: device c has 0\.001 MB and its part needs 0\.00224 MB"
    with pytest.raises(OutOfMemory, match=said):
        exported.check_memory(limits, "serve.memory_mb")
    assert exported.check_memory(dict.fromkeys(byhand.NAMES, 2240.0), "") is exported


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_one_to_three_of_four_devices_killed_at_random_instants(ray, seed):
    count, lost = 200, 1 + seed % 3
    kills = planned_kills([], lost, byhand.NAMES, count, seed)
    began = time.monotonic()
    service, answered = serve(ray, byhand.placement(1 + seed % 2), count, kills)
    assert time.monotonic() - began < 60
    assert len(answered) == count  # a placement answers as long as one device is left
    assert {loss.device for loss in service.losses} <= {kill.device for kill in kills}
