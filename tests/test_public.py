"""The names that users import, and what importing them costs."""

import inspect
import subprocess
import sys

import pytest

import afpjax


@pytest.mark.parametrize("name", afpjax.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name):
    value = getattr(afpjax, name)
    assert name in dir(afpjax)
    if name != "__version__":
        assert value.__module__.startswith("afpjax.") and value.__name__ == name
        assert (inspect.getdoc(value) or "").strip()


def test_the_zoo_is_there_by_name():
    assert callable(afpjax.models.load)


def test_names_that_are_not_public_are_refused():
    with pytest.raises(AttributeError, match="has no attribute 'partitoin'"):
        _ = afpjax.partitoin
    with pytest.raises(ImportError):
        exec("from afpjax import nothing_of_the_kind")


def test_types_for_checkers_are_the_names_at_run_time():
    """`if TYPE_CHECKING` lists what `__getattr__` finds, so editors know all names."""
    source = inspect.getsource(afpjax)
    listed = {
        line.split(" as ")[1].strip() for line in source.splitlines() if line.startswith("    from")
    }
    assert listed == set(afpjax.__all__) - {"__version__"}


def test_importing_it_waits_for_neither_jax_nor_numpy():
    code = (
        "import sys; import afpjax, afpjax.run; "
        "print(sorted({'jax', 'jaxlib', 'numpy', 'flax', 'matplotlib'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
