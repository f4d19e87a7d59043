"""A class name stands in one module only: whoever meets it knows which one is meant."""

import ast

from .test_imports import LIBRARY

#: Names that stand in several modules all the same. One that no longer does has to leave this list.
STATED: set[str] = set()


def test_a_class_name_stands_in_one_module():
    modules: dict[str, set[str]] = {}
    for module, path in LIBRARY.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                modules.setdefault(node.name, set()).add(module)
    several = {name: sorted(homes) for name, homes in modules.items() if len(homes) > 1}
    assert not {name: homes for name, homes in several.items() if name not in STATED}
    assert set(several) >= STATED, "take these off the list: they stand in one module now"
