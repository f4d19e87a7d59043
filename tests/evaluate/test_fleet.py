"""Rows on Ray workers: the answers of one engine, also when a worker dies half-way."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from afpjax.evaluate import fleet
from afpjax.evaluate.engine import Engine
from afpjax.evaluate.evaluator import Evaluator, as_they_are
from afpjax.evaluate.fleet import Fleet
from afpjax.evaluate.metric import OUTCOME
from afpjax.faults.model import FaultModel, thresholds
from afpjax.faults.sites import Fault, Site
from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import QFormat

from ..clusters import begin_cluster

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install '.[cluster]'")
KEY, FAULTS = 4, FaultModel(weight_rate=0.2, activation_rate=0.2)


@pytest.fixture(scope="module")
def cluster():
    """A cluster of this file's own: `auto` finds any on the machine, other tests' too."""
    begin_cluster()
    yield fleet.connect("auto")
    ray.shutdown()


@pytest.fixture
def maker(quantized, images, labels):
    """What a worker runs to build its engine; another network is as easily asked for."""
    conftest, key = str(Path(__file__).parents[1] / "faults/conftest.py"), KEY
    given = np.asarray(images), np.asarray(labels)

    def of(frac=quantized.format.frac, slow=0.0):
        def make():  # travels as it stands: what it needs is imported in the worker
            import runpy

            from afpjax.evaluate.evaluator import Evaluator
            from afpjax.evaluate.metric import OUTCOME
            from afpjax.network.fixed_point import QFormat

            network = runpy.run_path(conftest)["make_network"](QFormat(frac=frac))
            engine = Evaluator(network, *given, key, metric=OUTCOME).own_engine
            run = engine.run

            def slowly(spec, rows):
                time.sleep(slow)
                return run(spec, rows)

            engine.run = slowly
            return engine

        return make

    return of


def evaluator(quantized, images, labels, spread=None):
    return Evaluator(quantized, images, labels, KEY, metric=OUTCOME, spread=spread)


def answers(evaluator):
    """Masks and single faults; a whole mapping of each, many units of work."""
    limits = thresholds(FAULTS, evaluator.quantized, np.zeros((1, 3), np.int32))
    sites = [
        Site(layer, element, bit) for layer in range(3) for element in (0, 9) for bit in (3, 15)
    ]
    return evaluator.evaluate(FAULTS, limits, range(40)), evaluator.evaluate_sites(
        [Fault.at(site) for site in sites]
    )


def test_two_workers_give_the_answers_of_one_process_though_one_is_killed_half_way(
    cluster, quantized, images, labels, maker
):
    def spread(own: Engine) -> Fleet:
        made = Fleet(own, maker(slow=0.5), address="auto", workers=2)
        pids = ray.get([w.__ray_call__.remote(lambda self: os.getpid()) for w in made._workers])
        assert len(set(pids)) == 2 and os.getpid() not in pids
        killed.extend(pids[:1])
        threading.Timer(0.7, os.kill, (pids[0], signal.SIGKILL)).start()
        return made

    killed: list[int] = []
    got = answers(evaluator(quantized, images, labels, spread))
    for one, other in zip(got, answers(evaluator(quantized, images, labels)), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ProcessLookupError):
        os.kill(killed[0], 0)


def test_a_worker_with_another_network_is_refused(cluster, quantized, images, labels, maker):
    def spread(own):
        return Fleet(own, maker(6), address="auto", workers=1)

    with pytest.raises(InputError, match="a worker has another network than this machine"):
        evaluator(quantized, images, labels, spread)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", "'nonsense' is neither auto nor HOST:PORT"),
        ("127.0.0.1:1", "cannot reach 127.0.0.1:1: Connection refused"),
        ("127.0.0.1:99999999", "cannot reach 127.0.0.1:99999999"),
    ],
)
def test_an_address_that_is_none_is_refused_in_one_line(address, message):
    with pytest.raises(InputError, match=message) as raised:
        fleet.connect(address)
    assert "\n" not in str(raised.value)


def test_the_digest_of_a_network_tells_networks_and_images_apart(
    network_of, quantized, images, labels
):
    def digest(network, images, labels):
        return Evaluator(network, images, labels, KEY, prepare=as_they_are).own_engine.fingerprint

    same = digest(quantized, images, labels)
    assert same == digest(network_of(quantized.format), images, labels)
    assert same != digest(network_of(QFormat(frac=6)), images, labels)
    assert (
        same != digest(quantized, images[::-1], labels) != digest(quantized, images, labels[::-1])
    )


def test_where_there_is_no_cluster_auto_begins_one(monkeypatch):
    asked = []

    def init(address=None, **options):
        asked.append(address)
        if address == "auto":
            raise ConnectionError("no cluster")

    monkeypatch.setattr(ray, "init", init)
    assert fleet.connect("auto") is ray and asked == ["auto", None]
