"""What XLA is told: one compilation for equal programs, options on a CPU alone, memory, a mesh."""

import platform
import subprocess
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.evaluate import programs
from afpjax.inputs.errors import InputError
from afpjax.network import compiler


def lowered(function, *arguments):
    """`function` of tuples of arrays, giving a tuple, as `compile_all` takes it."""
    return jax.jit(function).lower(*arguments)


@pytest.fixture
def compilations(monkeypatch) -> Iterator[list[str]]:
    """The texts of the programs that are compiled anew."""
    compiler._compile.cache_clear()
    made: list[str] = []

    def options(ask=compiler.options, **which):
        made.append("one")
        return ask(**which)

    monkeypatch.setattr(compiler, "options", options)
    yield made
    compiler._compile.cache_clear()


def test_equal_programs_are_compiled_once_and_others_by_themselves(compilations):
    one = (jnp.arange(3.0),)
    given = [
        lowered(lambda x: (x[0] + 1,), one),
        lowered(lambda y: (y[0] + 1,), one),  # the same, from another function
        lowered(lambda x: (x[0] + 2,), one),
        lowered(lambda x: (x[0] + 1,), (jnp.arange(4.0),)),
        lowered(lambda x: (x[0] + 1,), (jnp.arange(3),)),
    ]
    made = compiler.compile_all(given)
    assert made[0] is made[1] and len(set(map(id, made))) == 4 == len(compilations)
    arguments = [one, one, one, (jnp.arange(4.0),), (jnp.arange(3),)]
    for program, x, more in zip(made, arguments, [1, 1, 2, 1, 1], strict=True):
        (got,) = program(x)
        np.testing.assert_array_equal(got, np.asarray(x[0]) + more)
        assert got.dtype == x[0].dtype
    compiler.compile_all(given[:2])
    assert len(compilations) == 4, "compiled before"


def test_programs_that_differ_in_a_large_constant_are_told_apart():
    x = (jnp.zeros((64, 64)),)
    constants = [np.arange(4096.0, dtype=np.float32).reshape(64, 64) for _ in range(2)]
    constants[1][40, 40] = -1
    made = compiler.compile_all([lowered(lambda x, c=c: (x[0] + c,), x) for c in constants])
    for program, constant in zip(made, constants, strict=True):
        np.testing.assert_array_equal(program(x)[0], constant)


def test_programs_that_read_other_arguments_are_told_apart():
    """jit may leave what nobody reads out of a program's text: which one it was must count."""
    first, second = compiler.compile_all(
        [
            programs._lower(None, lambda own, rest: own * 3, (jnp.float32(0),), jnp.float32(0)),
            programs._lower(None, lambda own, rest: rest * 3, (jnp.float32(0),), jnp.float32(0)),
        ]
    )
    pair = np.float32(1), np.float32(2)
    assert (float(first(*pair)[0]), float(second(*pair)[0])) == (3, 6)


def test_a_compiled_program_takes_trees_and_says_what_memory_it_takes():
    tree = {"b": jnp.ones((8, 4)), "a": (jnp.full((8, 4), 2.0), None)}
    flat = tuple(jax.tree.leaves(tree))
    (program,) = compiler.compile_all([lowered(lambda x, y: (x[0] - x[1], y[0]), flat, flat[:1])])
    difference, same = program(tree, [flat[0]])
    np.testing.assert_array_equal(difference, np.ones((8, 4)))
    np.testing.assert_array_equal(same, flat[0])
    assert program.output_bytes >= 2 * 8 * 4 * 4 and program.temporary_bytes >= 0


def test_temporary_memory_counts():
    """A product that is only summed: 4 MB that are neither argument nor result."""
    x = (jnp.ones((1024, 8)),)

    def function(x):
        square = x[0] @ x[0].T
        return ((square @ square)[0, 0],)

    (program,) = compiler.compile_all([lowered(function, x)])
    assert program.temporary_bytes >= 4 * 1024**2 > program.output_bytes


@pytest.fixture
def elsewhere(monkeypatch):
    """A process whose backend is said to be a GPU."""
    compiler.options.cache_clear()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    yield
    compiler.options.cache_clear()


def test_options_are_for_the_cpu_alone(elsewhere, monkeypatch):
    assert compiler.options() is None
    assert compiler.workers() == 1
    monkeypatch.delenv("AFPJAX_UNITS", raising=False)
    assert compiler.units() == "bfloat16"


def test_options_of_the_cpu_are_known_to_this_jaxlib():
    """Without them convolutions run at half the speed, and nothing else would say so."""
    if jax.default_backend() == "cpu":
        assert compiler.options()


def test_an_option_that_the_jaxlib_does_not_know_is_left_out(monkeypatch):
    compiler.options.cache_clear()
    monkeypatch.setattr(compiler, "_CPU", {"xla_cpu_no_such_option": True})
    try:
        assert compiler.options() is None
    finally:
        compiler.options.cache_clear()


def test_units_can_be_forced_and_others_are_refused(monkeypatch):
    for units in compiler.UNITS:
        monkeypatch.setenv("AFPJAX_UNITS", units)
        assert compiler.units() == units
    monkeypatch.setenv("AFPJAX_UNITS", "tf32")
    with pytest.raises(InputError, match=r"AFPJAX_UNITS: 'tf32' is none of float32, bfloat16"):
        compiler.units()


@pytest.mark.parametrize(
    ("words", "units"),
    [
        ("flags : avx2 avx512_vnni", compiler.BY_LAYER),
        ("flags: amx_int8", compiler.BY_LAYER),
        ("flags : avx", ""),
    ],
)
def test_a_cpu_that_multiplies_bytes_has_units_by_layer(words, units, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(words)
    monkeypatch.delenv("AFPJAX_UNITS", raising=False)
    monkeypatch.setattr(compiler, "Path", lambda name: tmp_path / "cpuinfo")
    compiler.processor_features.cache_clear()
    assert compiler.units() == (units or "float32")
    (tmp_path / "cpuinfo").unlink()
    compiler.processor_features.cache_clear()
    assert compiler.units() == "float32", "a system that does not say"
    compiler.processor_features.cache_clear()


def test_memory_is_what_is_free_and_no_more():
    free = compiler.memory_bytes()
    assert isinstance(free, int) and free > 2**20
    if platform.system() == "Linux" and jax.default_backend() == "cpu":
        with open("/proc/meminfo") as lines:
            total = next(int(line.split()[1]) for line in lines if line.startswith("MemTotal"))
        assert free <= total * 1024 // 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="without glibc nothing happens")
def test_memory_that_is_kept_is_not_mapped_anew_and_twice_does_no_harm():
    """In a process of its own: page faults of ten arrays of 64 MB, one after the other."""
    program = """
import resource, numpy as np
from afpjax.network.compiler import keep_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(8 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
usual = faults()
keep_memory(); keep_memory(); np.ones(8 * 2**20)
print(usual, faults())
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300
    )
    usual, kept = map(int, run.stdout.split())
    assert kept < usual / 10
