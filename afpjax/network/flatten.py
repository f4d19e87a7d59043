"""What layers are called: after the parameters that their kernels are made of."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax.extend import core
from jaxtyping import Array

from afpjax.inputs.errors import InputError
from afpjax.network.program import Equation, Operand, Value, live, reads
from afpjax.network.units import LINEAR

LEAVES = ("kernel", "weight", "weights", "w", "W", "embedding")
WRAPPERS = ("value", "raw_value")  # an NNX variable's array
COLLECTIONS = ("params",)


def layer_name(origin: frozenset[str]) -> str:
    """The common dotted path of some parameters, without the leaf's own name; "" where none."""
    paths = [path.split(".") for path in sorted(origin)]
    if not paths:
        return ""
    common = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    for endings in (WRAPPERS, LEAVES):
        if len(common) > 1 and common[-1] in endings:
            common.pop()
    if len(common) > 1 and common[0] in COLLECTIONS:
        common = common[1:]
    return ".".join(common)


# What runs as it is, so that a layer inside could neither be seen nor struck.
OPAQUE = ("scan", "while", "cond", "shard_map")
CALLS = ("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint", "composite")
# A rule (derivative, batching) belongs to these: they are kept whole unless a layer is inside.
CUSTOM = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_vmap_call")


class Fact(NamedTuple):
    """What is known of a value: whether the image reaches it, and which parameters do."""

    dependent: bool = False
    origin: frozenset[str] = frozenset()


class Hidden(NamedTuple):
    """A layer inside another equation: its own equation, and which operand its kernel is."""

    eqn: core.JaxprEqn
    kernel: int
    origin: frozenset[str]


def merge(facts: Iterable[Fact]) -> Fact:
    """What is known of a value made from these."""
    facts = list(facts)
    return Fact(
        any(fact.dependent for fact in facts), frozenset().union(*(fact.origin for fact in facts))
    )


def kernel_operand(primitive: core.Primitive, facts: Sequence[Fact]) -> int | None:
    """Which operand of a layer is its kernel, or None if the equation is no layer.

    A layer is a convolution or matrix product of which exactly one operand depends on the image;
    of a convolution, the first.
    """
    flags = [fact.dependent for fact in facts]
    if primitive.name not in LINEAR or sum(flags) != 1:
        return None
    if primitive.name == "conv_general_dilated" and not flags[0]:
        return None
    return flags.index(False)


def hidden_layer(eqn: core.JaxprEqn, facts: Sequence[Fact]) -> Hidden | None:
    """The first layer in `eqn`'s nested jaxprs, its operands being what `facts` say."""
    return _equation(eqn, facts)[0]


def inner_jaxpr(eqn: core.JaxprEqn) -> Any:
    """The (closed) jaxpr that a call equation calls, or None."""
    kinds = (core.Jaxpr, core.ClosedJaxpr)
    return next((value for value in eqn.params.values() if isinstance(value, kinds)), None)


def _equation(eqn: core.JaxprEqn, facts: Sequence[Fact]) -> tuple[Hidden | None, list[Fact]]:
    merged = merge(facts)
    outputs = [merged] * len(eqn.outvars)
    if not merged.dependent:
        return None, outputs
    for inner, inner_facts in _nested(eqn, list(facts)):
        found, results = _walk(inner, inner_facts)
        if found is not None:
            return found, outputs
        if eqn.primitive.name in CALLS + CUSTOM:
            outputs = results
    return None, outputs


def _walk(jaxpr: core.Jaxpr, facts: Sequence[Fact]) -> tuple[Hidden | None, list[Fact]]:
    known: dict[Any, Fact] = dict(zip(jaxpr.invars, facts, strict=True))

    def read(var: Any) -> Fact:  # literals and closed-over arrays are made of nothing
        return Fact() if isinstance(var, core.Literal) else known.get(var, Fact())

    for eqn in jaxpr.eqns:
        operands = [read(var) for var in eqn.invars]
        kernel = kernel_operand(eqn.primitive, operands)
        if kernel is not None:
            return Hidden(eqn, kernel, operands[kernel].origin), []
        found, outputs = _equation(eqn, operands)
        if found is not None:
            return found, []
        known.update(zip(eqn.outvars, outputs, strict=True))
    return None, [read(var) for var in jaxpr.outvars]


def _nested(eqn: core.JaxprEqn, facts: list[Fact]) -> list[tuple[core.Jaxpr, list[Fact]]]:
    """The jaxprs that an equation runs, with what is known of their inputs."""
    name, params = eqn.primitive.name, eqn.params
    if name == "cond":
        return [(_open(branch), facts[1:]) for branch in params["branches"]]
    if name == "scan":
        body = _open(params["jaxpr"])
        return [(body, _loop_facts(body, facts, *_scan_counts(params)))]
    if name == "while":
        tests, consts = params["cond_nconsts"], params["body_nconsts"]
        body, test = _open(params["body_jaxpr"]), _open(params["cond_jaxpr"])
        inner = _loop_facts(body, facts[tests:], consts, len(facts) - tests - consts)
        return [(body, inner), (test, facts[:tests] + inner[consts:])]
    calls = name in (*CALLS, *CUSTOM, "shard_map")
    return [(_open(inner_jaxpr(eqn)), facts)] if calls else []


def _scan_counts(params: dict[str, Any]) -> tuple[int, int]:
    """How many of a scan's operands are constants, and how many are carried."""
    if "num_carry" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()  # jax 0.11
    return len(list(consts)), len(list(carry))


def _loop_facts(body: core.Jaxpr, facts: list[Fact], consts: int, carry: int) -> list[Fact]:
    """What is known of a loop body's inputs after as many rounds as it takes to learn it."""
    facts = list(facts)
    for _ in range(carry):
        found, out = _walk(body, facts)
        before = facts[consts : consts + carry]
        if found is not None:
            break
        after = [merge(pair) for pair in zip(before, out[:carry], strict=True)]
        if after == before:
            break
        facts[consts : consts + carry] = after
    return facts


def _open(jaxpr: Any) -> core.Jaxpr:
    return jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr


class Inliner:
    """Numbers values while it copies equations out of nested jaxprs.

    `facts[value]` says which parameters a value is made of, and whether the image reaches it.
    """

    def __init__(self) -> None:
        self.equations: list[Equation] = []
        self.shapes: dict[Value, tuple[int, ...]] = {}
        self.facts: dict[Value, Fact] = {}
        self.known: dict[Value, Any] = {}  # arrays that a function closed over

    def value(self, var: Any, fact: Fact) -> Value:
        """A new value of a jaxpr variable's shape."""
        value = Value(len(self.shapes))
        self.shapes[value] = tuple(getattr(var.aval, "shape", ()))
        self.facts[value] = fact
        return value

    def fact(self, operand: Operand) -> Fact:
        return self.facts[operand] if isinstance(operand, Value) else Fact()

    def depends(self, operand: Operand) -> bool:
        return self.fact(operand).dependent

    def run(
        self, jaxpr: core.Jaxpr, inputs: Sequence[Operand], constants: Sequence[Value] = ()
    ) -> list[Operand]:
        """Copy a jaxpr's equations, its input variables standing for `inputs`.

        Raises `InputError` for a layer inside control flow, by the layer's name.
        """
        environment: dict[Any, Operand] = dict(zip(jaxpr.invars, inputs, strict=True))
        environment.update(zip(jaxpr.constvars, constants, strict=True))

        def read(var: Any) -> Operand:
            return var if isinstance(var, core.Literal) else environment[var]

        for eqn in jaxpr.eqns:
            operands = [read(var) for var in eqn.invars]
            environment.update(zip(eqn.outvars, self._equation(eqn, operands), strict=True))
        return [read(var) for var in jaxpr.outvars]

    def closed_over(self, closed: core.ClosedJaxpr) -> list[Value]:
        """Values for the arrays that a jaxpr carries with it."""
        values = [self.value(var, Fact()) for var in closed.jaxpr.constvars]
        self.known.update(zip(values, closed.consts, strict=True))
        return values

    def _equation(self, eqn: core.JaxprEqn, operands: list[Operand]) -> list[Operand]:
        facts, name = [self.fact(operand) for operand in operands], eqn.primitive.name
        hidden = hidden_layer(eqn, facts) if name in OPAQUE + CUSTOM else None
        if name in OPAQUE and hidden is not None:
            raise InputError(_refusal(name, hidden))
        if name in CALLS or hidden is not None:
            return self._call(inner_jaxpr(eqn), operands)
        outputs = [self.value(var, merge(facts)) for var in eqn.outvars]
        self.equations.append(Equation(eqn, tuple(operands), tuple(outputs)))
        return list(outputs)

    def _call(self, inner: core.Jaxpr | core.ClosedJaxpr, operands: list[Operand]) -> list[Operand]:
        if not isinstance(inner, core.ClosedJaxpr):
            return self.run(inner, operands)
        return self.run(inner.jaxpr, operands, self.closed_over(inner))


def _refusal(outer: str, hidden: Hidden) -> str:
    kernel = hidden.eqn.invars[hidden.kernel].aval
    made_of = ", ".join(sorted(hidden.origin)) or "an array that the network closes over"
    return (
        f"the network: `{outer}` holds a layer ({layer_name(hidden.origin) or 'without a name'}: "
        f"`{hidden.eqn.primitive.name}`, kernel {kernel} of {made_of}); afpjax places every layer "
        "by itself: write the loop or branch out in Python"
    )


@dataclass(frozen=True, eq=False)
class Known:
    """The equations that the image does not reach, as one compiled function of what they read."""

    inputs: tuple[Value, ...]  # what the equations read
    outputs: tuple[Value, ...]  # what the rest of the program reads of what they make
    passed: tuple[Value, ...]  # what the rest of the program reads as it is given
    evaluate: Callable[[list[Any]], list[Array]]

    @property
    def needs(self) -> frozenset[Value]:
        """Every array that must be given."""
        return frozenset((*self.inputs, *self.passed))

    def values(self, arrays: Mapping[Value, Any]) -> dict[Value, Any]:
        """The values that the rest of the program reads, from arrays or tracers.

        What is only passed on stays what it is (NumPy float64, say).
        """
        values = {value: arrays[value] for value in self.passed}
        made = self.evaluate([arrays[value] for value in self.inputs]) if self.outputs else []
        return values | dict(zip(self.outputs, made, strict=True))


def split(
    inliner: Inliner, given: Iterable[Value], output: Operand
) -> tuple[Known, list[Equation]]:
    """Split a program in what depends on `given` alone, and the equations that remain.

    Broadcasts of small arrays stay in the program (XLA fuses them), so that a per-channel constant
    is not held once per pixel.
    """
    steps = live(inliner.equations, output)
    dependent = [step for step in steps if any(map(inliner.depends, step.outputs))]
    fixed = [step for step in steps if not any(map(inliner.depends, step.outputs))]
    read = {value for step in dependent for value in reads(step)}
    broadcasts = [
        step
        for step in fixed
        if step.primitive.name == "broadcast_in_dim" and step.outputs[0] in read
    ]
    read |= {value for step in broadcasts for value in reads(step)}
    given = {*given}
    made = {value for step in fixed for value in step.outputs}
    outputs = tuple(sorted(read & made - {step.outputs[0] for step in broadcasts}))
    inputs = tuple(sorted({value for step in fixed for value in reads(step)} & given))
    evaluate = jax.jit(_evaluation(fixed, inputs, outputs))
    return Known(inputs, outputs, tuple(sorted(read & given)), evaluate), [*broadcasts, *dependent]


def _evaluation(
    fixed: list[Equation], inputs: tuple[Value, ...], outputs: tuple[Value, ...]
) -> Callable[[list[Any]], list[Any]]:
    def evaluate(arrays: list[Any]) -> list[Any]:
        environment = dict(zip(inputs, arrays, strict=True))
        for step in fixed:
            operands = [environment[o] if isinstance(o, Value) else o.val for o in step.inputs]
            environment.update(zip(step.outputs, step.bind(*operands), strict=True))
        return [environment[value] for value in outputs]

    return evaluate
