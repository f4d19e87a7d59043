"""What stands in the environment before JAX starts."""

import pytest

from afpjax.network import start

FLAG = f"--{start.LEFT_TO_YNNPACK}={start.PRODUCTS_ALONE}"
SUMS = start.SUMS_ONLY | {"NPROC": "6"}


@pytest.fixture(autouse=True)
def not_begun(monkeypatch):
    monkeypatch.setattr(start, "_begun", lambda: False)
    monkeypatch.setattr(start, "jaxlib_version", lambda: "0.10.2")
    monkeypatch.setattr(start.os, "sched_getaffinity", lambda process: range(6))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, SUMS | {"XLA_FLAGS": FLAG}),
        ({"XLA_FLAGS": "--xla_a=1"}, SUMS | {"XLA_FLAGS": f"--xla_a=1 {FLAG}"}),
        (  # what somebody chose stays
            {"XLA_FLAGS": f"--{start.LEFT_TO_YNNPACK}=", "TF_ENABLE_WINOGRAD_NONFUSED": "1"},
            SUMS | {"XLA_FLAGS": f"--{start.LEFT_TO_YNNPACK}=", "TF_ENABLE_WINOGRAD_NONFUSED": "1"},
        ),
    ],
)
def test_what_is_not_set_is_set_once(before, after):
    environment = dict(before)
    start.prepare(environment)
    assert environment == after
    start.prepare(environment)
    assert environment == after


def test_a_jaxlib_that_may_not_know_the_flag_is_not_given_it(monkeypatch):
    for version in ("0.9.1", "0.12.0", ""):
        monkeypatch.setattr(start, "jaxlib_version", lambda version=version: version)
        environment = {}
        start.prepare(environment)
        assert environment == SUMS
    monkeypatch.setattr(start, "_begun", lambda: True)
    environment = {}
    start.prepare(environment)
    assert environment == {}, "what XLA has read already stays as it was read"


@pytest.mark.parametrize(("cores", "threads"), [(1, 2), (2, 2), (4, 4), (64, 64)])
def test_one_core_has_as_many_threads_as_two(monkeypatch, cores, threads):
    monkeypatch.setattr(start.os, "sched_getaffinity", lambda process: range(cores))
    environment = {}
    start.prepare(environment)
    assert environment["NPROC"] == str(threads)
