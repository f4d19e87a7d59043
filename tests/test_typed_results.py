"""Nothing in jobs or reports subscripts a result by a string: results are dataclasses."""

import ast

from .test_imports import LIBRARY

#: What has names of its own, none of them a key of a result: tables of tools and settings, what is
#: measured by kind of fault or of loss, columns of a fault list, and others' objects.
BY_NAME = {
    *("TOOLS", "TOOL_NAMES", "EXPORT.sources"),
    *("among", "fronts", "selected", "baselines", "known", "measured", "parts", "above", "ways"),
    *("layer.scores", "result.correlations.all"),
    *("cells", "content", "each.metadata", "first", "Sequence"),
    *("axes.spines", "made.filters", "made.globals"),
    "_content(setting, folder, tuple(jobs))",  # the job of a file that is not a result yet
}


def subscripted(tree: ast.AST) -> set[str]:
    """What `x["key"]` and `x.get("key")` are asked of, as it is written."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript):
            owner, key = node.value, node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr != "get" or not node.args:
                continue
            owner, key = node.func.value, node.args[0]
        else:
            continue
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            found.add(ast.unparse(owner))
    return found


def test_no_result_is_subscripted_by_a_string():
    found: dict[str, set[str]] = {}
    for module, path in LIBRARY.items():
        if module.startswith(("afpjax.jobs", "afpjax.report")):
            found[module] = subscripted(ast.parse(path.read_text(encoding="utf-8")))
    assert not {m: names - BY_NAME for m, names in found.items() if names - BY_NAME}
    assert set().union(*found.values()) >= BY_NAME, "take these off the list"


def test_what_is_subscripted_is_found():
    tree = ast.parse('a["b"]; c.d.get("e", 1); f(g)["h"]; i[0]; j.get(k)')
    assert subscripted(tree) == {"a", "c.d", "f(g)"}
