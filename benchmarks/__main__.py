"""`python -m benchmarks [NAME …]`: measure, print a table for each measure, write JSON."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.agreement import Disagrees
from benchmarks.timing import Effort

PROGRAM = "python -m benchmarks"
_QUIET = 0.05  # of the machine, for others
#: Name -> what it measures; a measure is a module with `measure(effort)`, and a name here.
MEASURES = {
    "throughput": "images × trials per second, clean and struck, against PyTorch and MRFI",
    "single": "one random weight bit per trial, against PyTorchFI",
    "population": "64 mappings together against one by one",
    "sweep": "every layer struck alone against full passes",
    "nsga2": "a generation of NSGA-II against pymoo's",
    "gpu": "this machine's accelerator: equal to the CPU, then rates, beside PyTorch on it",
    "job": "the default job: time, memory, compiling",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status, 0 if all is well.

    1: some of our own answers are wrong, and that measure was not timed. 2: bad input. Either is
    said in one line.
    """
    asked = _parser().parse_args(argv)
    chosen = list(dict.fromkeys(asked.names or MEASURES))
    unknown = [name for name in chosen if name not in MEASURES]
    if unknown:
        return _refuse(f"no measure `{unknown[0]}`; there are {', '.join(MEASURES)}")
    if asked.repeat is not None and asked.repeat < 1:
        return _refuse(f"--repeat: {asked.repeat} rounds; give at least 1")
    if asked.out is not None and not asked.out.resolve().parent.is_dir():
        return _refuse(f"--out {asked.out}: there is no such folder; make it first")
    rounds = asked.repeat or (2 if asked.quick else 7)
    effort = Effort(rounds, 0.05 if asked.quick else 0.5, asked.quick)
    return _run(chosen, effort, asked.out)


def _run(chosen: Sequence[str], effort: Effort, out: Path | None) -> int:
    # One process holds JAX and PyTorch: on a GPU neither may take all of its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from rich.console import Console

    from afpjax.network import compiler
    from benchmarks import machine, table

    compiler.keep_memory()  # for this process, the rivals too
    console = Console(width=None if sys.stdout.isatty() else 132)
    facts = machine.describe() | {"rounds": effort.rounds, "quick": effort.quick}
    found: dict[str, list[table.Row]] = {}
    notes: list[str] = []
    status = 0

    def note(line: str) -> None:
        notes.append(line)
        _say(line)

    for name in chosen:
        found[name], others = [], machine.Others()
        try:
            for made in import_module(f"benchmarks.{name}").measure(effort):
                if isinstance(made, str):
                    note(made)
                    continue
                found[name].append(made)
                if sys.stderr.isatty():  # a measure takes minutes, its table comes at the end
                    _say(f"{made.measure}: {table.number(made.ratio)} {made.unit}")
        except Disagrees as wrong:
            note(f"error: {name}: afpjax's own answers disagree: {wrong}")
            status = 1
        note(_quietness(name, others.cores(), machine.cores()))
        console.print(table.table(_title(name, effort), found[name]))
        if out is not None:
            table.write(out, table.as_json(facts, found, notes))
    return status


def _quietness(name: str, others: float | None, cores: int) -> str:
    if others is None:
        return f"{name}: what other processes took of the machine is not known"
    line = f"{name}: other processes took {others:.2f} of {cores} cores"
    busy = others > _QUIET * cores
    return line + ("; no figures to quote: rivals' threads suffer more than ours" * busy)


def _title(name: str, effort: Effort) -> str:
    return f"{name}: {MEASURES[name]}" + (" (--quick: no figures to quote)" * effort.quick)


class _OneLine(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(_refuse(message))


def _parser() -> argparse.ArgumentParser:
    names = "\n".join(f"  {name:12}{what}" for name, what in MEASURES.items())
    parser: Any = _OneLine(
        prog=PROGRAM,
        description="Measure afpjax beside its rivals.",
        epilog=f"measures:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure (default: all)")
    parser.add_argument("--quick", action="store_true", help="small: only to see that it works")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write all figures there")
    parser.add_argument("--repeat", type=int, metavar="N", help="rounds (default: 7; quick: 2)")
    return parser


def _refuse(line: str) -> int:
    _say(f"error: {line}")
    return 2


def _say(line: str) -> None:
    print(f"benchmarks: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
