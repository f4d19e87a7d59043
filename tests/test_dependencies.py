"""What pyproject.toml declares is imported, and what is imported is declared."""

import ast
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Two are modules that tests write.
OWN = {"afpjax", "afpjax_functions_model", "afpjax_tiny_model", "benchmarks", "tests"}

#: Where what is declared has to be imported.
PLACES = {
    "dependencies": ("afpjax", "models", "configs"),
    "test": ("tests",),
    "cluster": ("afpjax",),
    "serve": ("afpjax",),
    "torch": ("afpjax",),
    "bench": ("benchmarks",),
}
#: Distributions that are imported by another name.
IMPORTED_AS = {
    "MRFI": "mrfi",
    "orbax-checkpoint": "orbax",
    "pillow": "PIL",
    "scikit-learn": "sklearn",
}
#: Distributions that no code here imports, and why they are declared.
NOT_IMPORTED = {
    "jaxlib": "jax imports it; the pair is bounded together",
    "pytest-xdist": "a plugin, run by pytest's options",
    "beartype": "named in pytest's options: jaxtyping checks shapes with it",
    "torchvision": "MRFI imports it and does not say which one",
    "ruff": "a command",
    "pyright": "a command",
    "pre-commit": "a command",
    "build": "a command",
    "mkdocs-material": "the manual's theme, by its name in mkdocs.yml",
    "mkdocstrings": "the manual's reference, by its name in mkdocs.yml",
    "onnxscript": "torch imports it, to export what it cannot without",
}
#: Imports that come with what is declared.
NOT_DECLARED = {
    "google": "protobuf, whose errors onnx raises",
    "ml_dtypes": "the types of jax's arrays",
}
#: What is looked for and done without.
OPTIONAL = {
    "torch": "models read .pt files where it is installed; tests skip",
    "mrfi": "a rival of the benchmarks; tests skip",
    "pytorchfi": "a rival of the benchmarks; tests skip",
}


def declared() -> dict[str, set[str]]:
    """Distributions by group; an extra of another extra is left out."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    groups = {"dependencies": project["dependencies"], **project["optional-dependencies"]}
    return {
        group: {re.split(r"[^\w.-]", each)[0] for each in listed if not each.startswith("afpjax[")}
        for group, listed in groups.items()
    }


@cache
def names_in(path: Path) -> set[str]:
    return names_imported(ast.parse(path.read_text()))


def imported(*folders: str) -> dict[str, set[str]]:
    """Files by the package of others that they import, `importlib` and `importorskip` included."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for name in names_in(path):
                top = name.split(".")[0]
                if top not in sys.stdlib_module_names and top not in OWN:
                    found.setdefault(top, set()).add(str(path.relative_to(ROOT)))
    return found


def names_imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("import_module", "importorskip", "__import__"):
                names.add(str(node.args[0].value))
    return names


def modules(*groups: str) -> set[str]:
    """What the groups' distributions are imported as."""
    found = declared()
    return {IMPORTED_AS.get(each, each) for group in groups for each in found[group]}


@pytest.mark.parametrize("group", [*PLACES])
def test_what_is_declared_is_imported_where_it_is_declared_for(group):
    held = imported(*PLACES[group])
    for each in declared()[group] - set(NOT_IMPORTED):
        assert IMPORTED_AS.get(each, each) in held, each


@pytest.mark.parametrize(
    ("folder", "groups"),
    [
        ("afpjax", ("dependencies", "cluster", "serve")),
        ("models", ("dependencies",)),
        ("configs", ("dependencies",)),
        ("tests", ("dependencies", "test")),
        ("benchmarks", ("dependencies", "bench")),
    ],
)
def test_what_is_imported_is_declared(folder, groups):
    allowed = modules(*groups) | set(NOT_DECLARED) | set(OPTIONAL)
    for name, files in imported(folder).items():
        assert name in allowed, (name, sorted(files))


def test_the_tables_of_exceptions_hold_nothing_that_is_none():
    groups = declared()
    everything = set().union(*groups.values())
    assert everything >= set(NOT_IMPORTED) | set(IMPORTED_AS)
    held = imported("afpjax", "models", "configs", "tests", "benchmarks")
    assert set(held) >= set(NOT_DECLARED) | set(OPTIONAL)
    assert set(held).isdisjoint(NOT_IMPORTED)
    assert modules(*groups).isdisjoint(NOT_DECLARED)


def test_imports_are_found_wherever_they_stand():
    """Else nothing would be found missing."""
    source = "import a.b\ndef f():\n    from c.d import e\n    import_module('g')\nfrom . import h"
    assert names_imported(ast.parse(source)) == {"a.b", "c.d", "g"}
