"""Every feature that users can name, listed from the package as it runs.

`python tests/features.py` writes the list to `features.json`; tests hold that it stays as it is.
It reads what users see (help, results, folders of TOML files), little of what lies behind.
"""

import contextlib
import io
import json
import os
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FILE = Path(__file__).with_name("features.json")
GOLDEN = ROOT / "tests" / "golden"
#: Keys of results whose values are choices of a fixed list.
CHOICES = ("method", "tool", "scenario", "policy", "trace", "target", "interval_kind")


def helped(*words: str) -> str:
    """What `--help` prints, 80 columns wide, without frames and line breaks inside an option."""
    from afpjax.run import main

    printed, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([*words, "--help"])
    finally:
        os.environ.pop("COLUMNS") if columns is None else os.environ.update(COLUMNS=columns)
    lines = [line.strip("│╭╰╮╯─ \n") for line in printed.getvalue().splitlines()]
    return "\n".join(line for line in lines if line)


def options(text: str) -> dict[str, Any]:
    """Options of a help text: metavar, default where it is a value, range and choices."""
    listed = {}
    for entry in re.split(r"\n(?=--?[a-z])", text)[1:]:
        flat = " ".join(entry.split("\n"))
        head = re.match(r"(?:--?[\w.]+(?: [A-Z]+)?, )*(--[\w.]+)", flat)
        if head is None:
            continue
        option: dict[str, Any] = {}
        metavar = r"( true\|false| N\|TEXT|(?: \[?[A-Z]+\]?(?= |$))*)( \.\.\.)?"
        words = re.match(metavar, flat[head.end() :])
        if words and words[0].strip():
            option["type"] = words[0].strip()
        names = sorted(set(re.findall(r"--[\w.]+(?=[ ,]|$)", flat[: head.end()])) - {head[1]})
        if names:
            option["also"] = names
        if span := re.findall(r", (-?[\d.][\d.e+-]*) to (-?[\d.][\d.e+-]*)(?= \(default|$)", flat):
            option["range"] = [float(bound) for bound in span[-1]]
        if choices := re.findall(r"one of ([\w, -]+?)(?= \(default|$)", flat):
            option["choices"] = [choice.strip() for choice in choices[-1].split(",")]
        default = re.search(r"\(default: (.*?)\)(?= |$)", flat)
        if default and valued(default[1], option):
            option["default"] = [number(word) for word in default[1].split()]
        listed[head[1].removeprefix("--")] = option
    return listed


def valued(default: str, option: dict[str, Any]) -> bool:
    """Whether a default is a value, not a sentence about where it comes from."""
    if "choices" in option:
        return set(default.split()) <= set(option["choices"])
    return default in ("true", "false") or all(
        re.fullmatch(r"-?[\d.][\d.e+-]*|[a-z]+(-[a-z]+)+|[a-z]*\d\w*|eyeriss|simba|ucie|all", word)
        for word in default.split()
    )


def number(word: str) -> float | str:
    with contextlib.suppress(ValueError):
        return float(word)
    return word


def key_paths(value: Any, path: str = "") -> Iterator[str]:
    """`front[].latency_ms` and so on: every key of a result, a list's records taken together."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{path}.{key}".removeprefix(".")
            yield from key_paths(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from key_paths(inner, f"{path}[]")


def chosen(value: Any) -> Iterator[str]:
    """`method=robustdice` and so on."""
    if isinstance(value, dict):
        yield from (f"{key}={value[key]}" for key in CHOICES if isinstance(value.get(key), str))
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            yield from chosen(inner)


def operators() -> list[str]:
    """ONNX operators, from the tables named `OPERATORS` wherever they stand."""
    package = import_module("afpjax.network.onnx")
    names = [f"{package.__name__}.{module.name}" for module in iter_modules(package.__path__)]
    tables = [getattr(import_module(name), "OPERATORS", {}) for name in names]
    return sorted({operator for table in tables for operator in table})


def shipped(folder: str) -> list[str]:
    """TOML files in the folders of that name."""
    return sorted(path.stem for path in (ROOT / "afpjax").rglob(f"{folder}/*.toml"))


def features() -> dict[str, Any]:
    """The list, but for the files of run folders, which a run has to write."""
    import afpjax

    zoo = import_module("afpjax.models.zoo")
    every = options(helped())
    jobs = every["run.job"]["choices"]
    for job in jobs:
        every |= options(helped(job))
    results = {path.stem: json.loads(path.read_text()) for path in sorted(GOLDEN.glob("*.json"))}
    results.pop("rounding")
    return {
        "public": sorted(afpjax.__all__),
        "jobs": jobs,
        "options": dict(sorted(every.items())),
        "experiments": sorted(path.stem for path in (ROOT / "configs").glob("*.toml")),
        "devices": shipped("devices"),
        "boards": shipped("boards"),
        "links": shipped("links"),
        "networks": sorted(zoo.NETWORKS),
        "presets": sorted(zoo.PRESETS),
        "onnx operators": operators(),
        "choices in results": {
            name: sorted(set(chosen(result))) for name, result in results.items()
        },
        "result keys": {name: sorted(set(key_paths(result))) for name, result in results.items()},
    }


if __name__ == "__main__":
    kept = json.loads(FILE.read_text()) if FILE.is_file() else {}
    listed = {**features(), "files": kept.get("files", {})}
    FILE.write_text(json.dumps(listed, indent=1) + "\n")
