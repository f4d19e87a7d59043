"""Who imports whom, read from the source: downwards only, as the design has it."""

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: Room -> the rooms that it may import; every one may import `inputs`.
ALLOWED: dict[str, set[str]] = {
    "inputs": set(),
    "statistics": set(),
    "config": set(),
    "data": {"config.sections"},
    "network": set(),
    "hardware": {"network.layers"},
    "faults": {"network"},
    "evaluate": {"faults", "network"},
    "campaigns": {"evaluate", "faults", "network", "statistics"},
    "search": {"evaluate", "faults", "hardware", "network"},
    "neurons": {"evaluate", "faults", "hardware", "network", "search", "statistics"},
    "online": {"evaluate", "faults", "hardware", "search", "statistics"},
    "deploy": {"evaluate", "network", "neurons"},
    "experiment": {
        *("config", "data", "evaluate", "faults", "hardware", "network", "neurons", "search"),
    },
    "report": set(),
    "command": {"config", "experiment", "jobs", "network.compiler", "report"},
    "jobs": {
        *("campaigns", "config", "data", "deploy", "evaluate", "experiment"),
        *("faults", "hardware", "network", "neurons", "online", "report", "search", "statistics"),
    },
    "run": {"command"},
    "__main__": {"command"},
    # The public names, each imported at its first use.
    "__init__": {"command", "evaluate", "faults", "hardware", "network", "neurons", "search"},
}
#: The zoo is a package beside the library's parts, installed into it.
ZOO = {"config", "data", "faults", "network"}


def modules(folder: Path, package: str) -> dict[str, Path]:
    """Dotted names of a package's modules, `package.__init__` included."""
    return {
        ".".join((package, *path.relative_to(folder).with_suffix("").parts)): path
        for path in sorted(folder.rglob("*.py"))
    }


LIBRARY = modules(ROOT / "afpjax", "afpjax")
MODELS = modules(ROOT / "models", "afpjax.models")


def imports(path: Path, name: str, *, when: str = "ever") -> Iterator[str]:
    """Every dotted name that a module imports.

    `when`: `ever`; `at once`, what its own import runs; `later`, inside functions; `for types`.
    """
    home = name.split(".")[:-1]
    for node, moment in nodes_of(path):
        if when not in ("ever", moment):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = home[: len(home) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


@cache
def nodes_of(path: Path) -> list[tuple[ast.AST, str]]:
    return list(nodes(ast.parse(path.read_text(encoding="utf-8"))))


def nodes(parent: ast.AST, moment: str = "at once") -> Iterator[tuple[ast.AST, str]]:
    """Every node with the moment at which it runs."""
    for child in ast.iter_child_nodes(parent):
        inner = moment
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inner = "later"
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            inner = "for types"
        yield child, inner
        yield from nodes(child, inner)


def internal(path: Path, name: str, *, when: str = "ever") -> set[str]:
    """Imported names inside afpjax, without that first part."""
    found = {each for each in imports(path, name, when=when) if each.startswith("afpjax.")}
    return {each.removeprefix("afpjax.") for each in found} - {"__version__"}


def within(name: str, allowed: set[str]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in allowed)


def test_modules_import_only_what_lies_below_them():
    wrong = {}
    for name, path in LIBRARY.items():
        part = name.split(".")[1]
        assert part in ALLOWED, f"say here what `{part}` may import"
        allowed = {*ALLOWED[part], part, "inputs"}
        wrong[name] = {each for each in internal(path, name) if not within(each, allowed)}
    assert not {name: found for name, found in wrong.items() if found}


def test_rooms_lie_above_one_another():
    """What a room may import makes an order: none is allowed, over others, to import itself."""
    rooms = {room: {each.split(".")[0] for each in below} for room, below in ALLOWED.items()}
    assert {*TopologicalSorter(rooms).static_order()} >= {*ALLOWED}


def test_the_zoo_imports_nothing_of_search():
    allowed = {*ZOO, "models", "inputs"}
    for name, path in MODELS.items():
        assert not {each for each in internal(path, name) if not within(each, allowed)}, name


def test_nothing_imports_the_zoo():
    """A zoo network comes in as a user's own would: by name, when a run asks for it."""
    for name, path in LIBRARY.items():
        named = {tuple(each.split(".")) for each in imports(path, name)}
        assert not {each for each in named if each[:2] == ("afpjax", "models")}, name
        assert not {each for each in named if each[0] in ("models", "configs")}, name


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
        name: {home(each) for each in internal(path, name, when="at once")} - {name, None}
        for name, path in LIBRARY.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) >= len(LIBRARY)
    assert any(graph.values())


def hidden(when: str) -> dict[str, int]:
    """Modules that import own ones at such a moment, counted by room."""
    return dict(
        Counter(
            name.split(".")[1]
            for name, path in LIBRARY.items()
            if name != "afpjax.__init__" and internal(path, name, when=when)
        )
    )


#: Rooms and how many of their modules hide imports of own modules: none but for what the command
#: puts off so that `--help` does not wait for JAX.
HIDDEN = {"for types": {}, "later": {"__main__": 1, "command": 1}}


@pytest.mark.parametrize("when", HIDDEN)
def test_imports_of_own_modules_are_not_hidden(when):
    """Behind `TYPE_CHECKING` or in functions circles grow that nobody sees."""
    assert hidden(when) == HIDDEN[when], "more than stated, or fewer: then shrink HIDDEN"


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
    assert set(imports(path, name, when="at once")) == every
    assert set(imports(path, name, when="for types")) == {"t"}
    assert set(imports(path, name, when="later")) == {"afpjax.jobs"}
    assert internal(path, name) == {"search.nsga2", "models.zoo.x", "data", "jobs"}
