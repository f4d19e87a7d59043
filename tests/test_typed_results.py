"""Nothing in jobs or reports subscripts a result by a string: results are dataclasses."""

import ast

from .test_imports import LIBRARY

#: Module -> what has names of its own there, none of them a key of a result: tables of tools, what
#: is measured by kind of fault or of loss, columns of a fault list, and others' objects.
BY_NAME = {
    "campaign.fault_lists": {"cells"},
    "distribute.charts": {"axes.spines"},
    "distribute.compared": {"measured"},
    "distribute.run": {"measured", "parts"},
    "importance.run": {"layer.scores"},
    "importance.view": {"result.correlations.all"},
    "online.run": {"known"},
    "online.view": {"above"},
    "partition.run": {"among", "baselines", "found", "fronts", "own", "selected"},
    "partition.view": {"TOOL_NAMES"},
    "serve.settings": {"EXPORT.sources"},
    # The job of a file that is not a result yet.
    "shared.earlier": {"_content(setting, folder, tuple(jobs))", "content"},
    "shared.learnt": {"known"},
    "shared.records": {"ways"},
    "shared.result": {"each.metadata", "first"},
    "render": {"made.filters", "made.globals"},
    "view": {"Sequence"},
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
        if module.startswith(("afpjax.jobs.", "afpjax.report.")):
            names = subscripted(ast.parse(path.read_text(encoding="utf-8"))) - {"TOOLS"}
            if names:
                found[module.split(".", 2)[2]] = names
    assert found == BY_NAME


def test_what_is_subscripted_is_found():
    tree = ast.parse('a["b"]; c.d.get("e", 1); f(g)["h"]; i[0]; j.get(k)')
    assert subscripted(tree) == {"a", "c.d", "f(g)"}
