"""A backend that is wrong is refused: the compiler's known case, and what checks remember."""

import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.inputs.errors import InputError
from afpjax.network import compiler, int8, self_check

# jax-ml/jax#39103: wrong in jaxlib 0.10.2 with its own options, and with two of ours of before.
ROWS = {np.float32: (32_769, 32_783, 65_537, 100_003), np.float64: (16_385, 16_399, 32_769)}


def test_a_product_that_a_reduction_follows_is_right_with_our_options():
    """The report's function on rows of integers, against NumPy."""
    rng = np.random.default_rng(3)
    for dtype, sizes in ROWS.items():
        for size in sizes:
            by, rows = (rng.integers(-3, 4, (n, 3)).astype(dtype) for n in (3, size))
            with jax.enable_x64(dtype == np.float64):
                lowered = jax.jit(jax.vmap(lambda row, by=by: jnp.sum((by @ row) ** 2))).lower(rows)
                of_all = lowered.compile(compiler_options=compiler.options())
                found = np.asarray(of_all(rows))
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, ((rows @ by.T) ** 2).sum(axis=1), str(size))


def python(program, **environment):
    own = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=300,
        env=own | environment,
    )


ALL_RIGHT = """
import numpy as np
rows = np.random.default_rng(3).integers(-3, 4, (32_769, 3)).astype(np.float32)
by = np.arange(9, dtype=np.float32).reshape(3, 3)
found = jax.jit(jax.vmap(lambda row: jax.numpy.sum((by @ row) ** 2)))(rows)
right = np.array_equal(found, ((rows @ by.T) ** 2).sum(axis=1))
"""


def test_after_importing_afpjax_all_of_jax_is_right():
    run = python(f"import jax, afpjax\n{ALL_RIGHT}\nassert right")
    assert run.returncode == 0, run.stderr


def test_where_jax_had_started_before_it_is_right_or_refused(tmp_path):
    program = f"""
import jax
jax.devices()
import afpjax
from afpjax.network import self_check
try:
    self_check.check()
except afpjax.InputError as error:
    assert "import afpjax before JAX is used" in str(error) and "\\n" not in str(error)
else:
    {ALL_RIGHT.strip().replace(chr(10), chr(10) + "    ")}
    assert right
"""
    run = python(program, AFPJAX_CACHE=str(tmp_path))
    assert run.returncode == 0, run.stderr


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache folder, and a process that has checked nothing."""
    monkeypatch.setenv("AFPJAX_CACHE", str(tmp_path / "cache"))
    self_check._checked.cache_clear()
    yield tmp_path / "cache"
    self_check._checked.cache_clear()


@pytest.fixture
def checks(monkeypatch):
    """How often something runs; it runs nothing itself."""
    made = []
    monkeypatch.setattr(self_check, "_refuse_wrong", lambda trials, options, how: made.append(how))
    return made


@pytest.mark.parametrize("units", [*compiler.UNITS, compiler.BY_LAYER])
def test_this_backend_is_right(cache, monkeypatch, units):
    monkeypatch.setattr(compiler, "units", lambda: units)
    self_check.check()
    (remembered,) = (cache / "checked").iterdir()
    assert units in remembered.read_text()


def test_what_was_right_is_remembered_for_its_options_and_units(cache, checks, monkeypatch):
    def checked():
        self_check._checked.cache_clear()
        before = len(checks)
        self_check.check()
        return len(checks) - before

    every = 3  # with the options of networks, of some convolutions, and JAX's own
    monkeypatch.setenv("AFPJAX_UNITS", "float32")
    assert (checked(), checked()) == (every, 0)
    monkeypatch.setenv("AFPJAX_UNITS", "bfloat16")
    assert (checked(), checked()) == (every, 0)
    monkeypatch.setenv("XLA_FLAGS", "--xla_other=1")
    assert (checked(), checked()) == (every, 0)
    for each in (cache / "checked").iterdir():
        each.write_bytes(b"\xff damaged")
    assert (checked(), checked()) == (every, 0)
    shutil.rmtree(cache)
    cache.write_text("a file: what cannot be written is done without")
    assert (checked(), checked()) == (every, every)


def test_what_is_wrong_is_refused_in_one_line_and_not_remembered(cache, monkeypatch):
    wrong = self_check.Check("a sum", jnp.sum, (np.ones(3, np.float32),), np.array(4.0))
    monkeypatch.setattr(self_check, "_of_all", lambda: [wrong])
    for _ in range(2):
        with pytest.raises(InputError, match="a sum: 1 of the numbers are wrong on this") as error:
            self_check.check()
        assert "\n" not in str(error.value) and "jaxlib" in str(error.value)
    assert not cache.exists()


def test_bytes_that_are_summed_in_16_bits_are_found_out(cache, monkeypatch):
    """As instructions before VNNI do: an unsigned byte by a signed one, two of these, saturated."""

    def saturated(left, right, dimensions):
        pairs = (left.astype(jnp.int32) + 128)[:, :-1, None] * right.astype(jnp.int32)[None, :-1]
        sums = pairs.reshape(len(left), -1, 2, right.shape[1]).sum(2)
        last = (left.astype(jnp.int32) + 128)[:, -1:] * right.astype(jnp.int32)[-1:]
        off = 128 * right.astype(jnp.int32).sum(0)
        return jnp.clip(sums, -(2**15), 2**15 - 1).sum(1) + last - off[None]

    monkeypatch.setattr(compiler, "units", lambda: "int8")
    monkeypatch.setattr(int8, "dot_general", saturated)
    with pytest.raises(InputError, match=r"codes of 8 bits on int8 units: .* are wrong"):
        self_check.check()
