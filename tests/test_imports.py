"""Who imports whom, read from the source: downwards only, as the design has it."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What a part may import of afpjax beside itself; every part may import `errors` and `checks`.
BASE = {"array_files", "cache", "compiler", "files", "image_size", "settings", "start"}
SETTINGS = {
    "sections",
    "deploy_sections",
    "job_sections",
    "config",
    "config_checks",
    "image_size",
    "settings",
    "progress",
    "outcome",
}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "checks": set(),
    "cache": set(),
    "compiler": {"start"},
    "start": set(),
    "files": set(),
    "array_files": {"files"},
    "image_size": set(),
    "settings": {"image_size"},
    "progress": set(),
    "interrupts": set(),
    "notes": set(),
    "store": set(),
    "deploy_sections": {"settings"},
    "job_sections": {"settings"},
    "sections": {"deploy_sections", "job_sections", "settings"},
    "config_checks": {"deploy_sections", "image_size", "job_sections", "sections", "settings"},
    "config": {"config_checks", "files", "sections", "settings"},
    "uses": {"sections", "settings"},
    "earlier_run": {"config", "sections", "settings"},
    "memory": set(),
    "outcome": {"config", "progress"},
    "images": {"image_size"},
    "image_arrays": {"array_files", "files", "image_size", "images"},
    "image_folders": {"files"},
    "image_files": {"files", "image_folders", "images"},
    "data": {"image_arrays", "image_files", "image_folders", "image_size", "images", "sections"},
    "network": {*BASE, "notes"},
    "hardware": {"files", "network.layers"},
    "faults": {*BASE, "network", "notes"},
    "search": {"faults", "files", "hardware", "network", "notes"},
    "robust": {*BASE, "network", "faults", "hardware"},
    "model_source": {*SETTINGS, "data", "faults", "memory", "network"},
    "experiment_faults": {*SETTINGS, "faults", "hardware"},
    "experiment": {
        *SETTINGS,
        "experiment_faults",
        "data",
        "faults",
        "hardware",
        "memory",
        "model_source",
        "network",
        "robust",
        "search",
    },
    "deploy": {*BASE, "faults", "network", "robust"},
    "jobs": {
        *SETTINGS,
        "data",
        "deploy",
        "experiment",
        "faults",
        "files",
        "hardware",
        "model_source",
        "network",
        "notes",
        "robust",
        "search",
        "store",
    },
    "report": {*SETTINGS, "notes", "search", "robust", "faults", "hardware", "network"},
    "command": {"config", "image_size", "sections", "settings"},
    "run_folder": {"config", "files"},
    "run": {
        "streams",
        *SETTINGS,
        *BASE,
        "command",
        "earlier_run",
        "interrupts",
        "notes",
        "run_folder",
        "store",
        "jobs",
        "report",
        "uses",
    },
    "streams": set(),
    "__main__": {"interrupts", "run"},
    # The public names, each imported at its first use.
    "__init__": {"network", "hardware", "faults", "robust", "search", "start"},
}
#: The zoo is a package beside the library's parts, installed into it.
ZOO = {*BASE, "data", "faults", "images", "sections", "network"}


def modules(folder: Path, package: str) -> dict[str, Path]:
    """Dotted names of a package's modules, `package.__init__` included."""
    return {
        ".".join((package, *path.relative_to(folder).with_suffix("").parts)): path
        for path in sorted(folder.rglob("*.py"))
    }


LIBRARY = modules(ROOT / "afpjax", "afpjax")
MODELS = modules(ROOT / "models", "afpjax.models")


def imports(path: Path, name: str, *, at_once: bool = False) -> Iterator[str]:
    """Every dotted name that a module imports; `at_once`: only what its own import runs."""
    home = name.split(".")[:-1]
    for node in nodes(ast.parse(path.read_text(encoding="utf-8")), at_once):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = home[: len(home) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def nodes(node: ast.AST, at_once: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not (at_once and (later or for_types)):
            yield child
            yield from nodes(child, at_once)


def internal(path: Path, name: str, *, at_once: bool = False) -> set[str]:
    """Imported names inside afpjax, without that first part."""
    found = {each for each in imports(path, name, at_once=at_once) if each.startswith("afpjax.")}
    return {each.removeprefix("afpjax.") for each in found} - {"__version__"}


def within(name: str, allowed: set[str]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in allowed)


@pytest.mark.parametrize("name", LIBRARY)
def test_a_module_imports_only_what_lies_below_it(name):
    part = name.split(".")[1]
    assert part in ALLOWED, f"say here what `{part}` may import"
    allowed = {*ALLOWED[part], part, "errors", "checks"}
    wrong = {each for each in internal(LIBRARY[name], name) if not within(each, allowed)}
    assert not wrong, f"{name} imports {sorted(wrong)}"


@pytest.mark.parametrize("name", MODELS)
def test_the_zoo_imports_nothing_of_faults_and_search(name):
    allowed = {*ZOO, "models", "errors", "checks"}
    wrong = {each for each in internal(MODELS[name], name) if not within(each, allowed)}
    assert not wrong, f"{name} imports {sorted(wrong)}"


@pytest.mark.parametrize("name", LIBRARY)
def test_nothing_imports_the_zoo(name):
    """A zoo network comes in as a user's own would: by name, when a run asks for it."""
    named = set(imports(LIBRARY[name], name))
    assert not {each for each in named if each.split(".")[:2] == ["afpjax", "models"]}
    assert not {each for each in named if each.split(".")[0] in ("models", "configs")}


def test_modules_do_not_import_one_another_in_a_circle():
    def home(imported: str) -> str | None:
        """The module that holds an imported name."""
        parts = f"afpjax.{imported}".split(".")
        for end in range(len(parts), 1, -1):
            name = ".".join(parts[:end])
            for known in (name, f"{name}.__init__"):
                if known in LIBRARY:
                    return known
        return None

    graph = {
        name: {home(each) for each in internal(path, name, at_once=True)} - {name, None}
        for name, path in LIBRARY.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) >= len(LIBRARY)
    assert any(graph.values())


def test_the_reader_of_imports_sees_what_there_is(tmp_path):
    """Nested, relative and renamed imports; a check that sees nothing would allow everything."""
    path = tmp_path / "sample.py"
    path.write_text(
        "import a.b as c\nfrom afpjax.search import nsga2\n"
        "from .zoo import x\nfrom .. import data\n"
        "if TYPE_CHECKING:\n    import t\ndef f():\n    from afpjax import jobs\n"
    )
    every = {"a.b", "afpjax.search.nsga2", "afpjax.models.zoo.x", "afpjax.data"}
    name = "afpjax.models.sample"
    assert set(imports(path, name)) == {*every, "t", "afpjax.jobs"}
    assert set(imports(path, name, at_once=True)) == every
    assert internal(path, name) == {"search.nsga2", "models.zoo.x", "data", "jobs"}
