"""Look into nested jaxprs for layers, without running or copying them."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from jax.extend import core

# What runs as it is, so that a layer inside could neither be seen nor struck.
OPAQUE = ("scan", "while", "cond", "shard_map")
LINEAR = ("conv_general_dilated", "dot_general")
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
