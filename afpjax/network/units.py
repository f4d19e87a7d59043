"""How a layer's operands are multiplied: on the units of the machine that are exact for them.

Codes are integers held in float32. `float32` units multiply them as they are; `quantized.py` says
how exactly. Tensor cores and their like multiply bfloat16 numbers, many times faster, and sum in
float32 (`bfloat16` units). bfloat16 has 8 significant bits, so that it holds every integer from
-256 to 256: all codes of up to 9 bits, but neither 257 nor 32767. Codes of up to 16 bits are cut
in two signed parts, which it holds,

    x = 256·h + l    with l = (x + 128) mod 256 - 128 in [-128, 127], and so h in [-128, 128],

and a sum T = Σx·x' of n products is put together from four sums of products of parts:

    T = A + Σl·l'    with A = 2^16·Σh·h' + 2^8·(Σh·l' + Σl·h').

How exact that is, with S = Σ|x·x'| and u = 2^-24, float32's unit roundoff:

- A product of two such operands has at most 17 bits: it is exact, and so is a sum of them in
  any order as long as their magnitudes sum to at most 2^24. With one part all is as on float32
  units: T itself where S <= 2^24, beyond off by no more than n·u·S.
- Two parts, S <= 2^24: T itself, bit for bit. Proof: if h = 0 then l = x; otherwise |x| >= 128 >=
  |l|. So |l| <= |x| and 256·|h| <= |x| + |l| <= 2·|x|, and the magnitudes of the four sums' terms
  add up to no more than 4S/2^16, 2S/2^8, 2S/2^8 and S: the four sums are exact, and so is that of
  the middle two. A / 2^8 is an integer, |A| = |T - Σl·l'| <= 2S, so A is exact; T is an integer of
  at most S <= 2^24.
- Two parts, n <= 512: whatever the codes are, each of the four sums is at most 512 · 2^14 = 2^23
  and exact, and so is the sum of the middle two. A, a multiple of 2^8, is exact where |A| <= 2^32,
  and what comes out then is T rounded once. Otherwise A and T are rounded once each: off by at most
  u·(|A| + |T|) <= u·(2·|T| + Σ|l·l'|) to first order. Float32 units are off by up to n·u·S.
- Two parts, any n: a product meets at most n - 1 roundings in its sum and three on the way to T:
  off by at most (n + 2)·u·Σ(256·|h| + |l|)·(256·|h'| + |l'|) to first order (Higham, Accuracy and
  Stability of Numerical Algorithms, 2002, section 3.1). 256·|h| + |l| is at most |x| + 256, and at
  most 3·|x|: the sum is S or little more for codes that use their bits, 9·S at the very worst.

The bias comes after T, and adds two roundings more as it does there. A tensor core aligns its
products and its accumulator to the largest of them and cuts off what lies below, keeping 24 bits
or more (Fasi, Higham, Mikaitis and Pranesh, Numerical behavior of NVIDIA tensor cores, 2021): what
is exact above stays so, and the bounds of inexact sums are three times as large. All of this is
about algorithms that sum the products; Winograd's and Fourier's do not. cuDNN may choose them for
a convolution, of float32 too, unless `TF_ENABLE_WINOGRAD_NONFUSED=0` and
`TF_ENABLE_FFT_TILING_FORWARD=0` are in the environment: `afpjax.network.start` puts them there, and
`network/self_check.py` holds what comes out against NumPy's integers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend import core
from jaxtyping import Array, BFloat16, Float

from afpjax.inputs.errors import InputError
from afpjax.network.compiler import UNITS

#: Primitives that multiply and sum.
LINEAR = ("conv_general_dilated", "dot_general")

ONE_PART = 9  # bits of the widest code that bfloat16 holds
TWO_PARTS = 16

#: (image, kernel) -> output, linear in both; its dtype is what `precision` says of theirs.
Linear = Callable[[Array, Array], Array]


def multiply(
    linear: Linear,
    codes: Float[Array, "..."],
    kernel: Float[Array, "..."],
    *,
    bits: int,
    units: str,
) -> Float[Array, "..."]:
    """`linear(codes, kernel)` of integer codes of `bits` bits (all float32), on some units.

    `units` is "float32" or "bfloat16"; codes of more than 16 bits stay on float32 units. The
    gradient is that of `linear` on float32 units: cotangents are no integers. Raises `InputError`
    for other units.
    """
    if units not in UNITS:
        raise InputError(f"units: {units!r} is none of {', '.join(UNITS)}")
    if units == "float32" or bits > TWO_PARTS:
        return linear(codes, kernel)
    return _on_bfloat16(linear, bits > ONE_PART, codes, kernel)


def precision(dtype: Any) -> dict[str, Any]:
    """What a product of operands of a dtype must say: bfloat16 is summed in float32, the others in
    themselves.

    float32 operands ask for the highest precision, or a GPU would cut them to TF32's 11 bits.
    bfloat16 operands have but 8, exact in either: XLA widens those of a convolution on a GPU to
    float32, and only with the default precision does it stay on tensor cores.
    """
    if dtype == jnp.bfloat16:
        return {"precision": None, "preferred_element_type": np.dtype(np.float32)}
    return {"precision": (lax.Precision.HIGHEST,) * 2, "preferred_element_type": dtype}


def in_full(eqn: core.JaxprEqn) -> core.JaxprEqn:
    """An equation whose products, those of nested jaxprs too, have the highest precision."""
    params = {name: _in_full(value) for name, value in eqn.params.items()}
    if eqn.primitive.name in LINEAR:
        params["precision"] = (lax.Precision.HIGHEST,) * 2
    return eqn.replace(params=params)


def _in_full(value: Any) -> Any:
    """A parameter of an equation; jaxprs are parameters, or stand in tuples (`cond`)."""
    if isinstance(value, core.ClosedJaxpr):
        return value.replace(jaxpr=_in_full(value.jaxpr))
    if isinstance(value, core.Jaxpr):
        return value.replace(eqns=[in_full(eqn) for eqn in value.eqns])
    return tuple(map(_in_full, value)) if type(value) is tuple else value


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _on_bfloat16(linear: Linear, in_two: bool, codes: Array, kernel: Array) -> Array:
    if not in_two:
        return linear(codes.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    # One product of twice the images by twice the channels: jax batches one operand at a time
    # into that, grouped convolutions included, where a batch of both would become groups.
    of_images = jax.vmap(jax.vmap(linear, in_axes=(None, 0)), in_axes=(0, None))
    (high, middle), (other, low) = of_images(_parts(codes), _parts(kernel))
    return (high * 2.0**16 + (middle + other) * 2.0**8) + low


def _on_bfloat16_jvp(linear: Linear, in_two: bool, primals: Any, tangents: Any) -> Any:
    (codes, kernel), (of_codes, of_kernel) = primals, tangents
    made = _on_bfloat16(linear, in_two, codes, kernel)
    # A zero that is known to be one is left out: it would cost a product more, and `vmap` might
    # give the kernel's a batch axis.
    terms = [] if isinstance(of_codes, SymbolicZero) else [linear(of_codes, kernel)]
    terms += [] if isinstance(of_kernel, SymbolicZero) else [linear(codes, of_kernel)]
    return made, sum(terms[1:], terms[0])


_on_bfloat16.defjvp(_on_bfloat16_jvp, symbolic_zeros=True)


def _parts(codes: Float[Array, "..."]) -> BFloat16[Array, "2 ..."]:
    """The high and the low part of each code."""
    high = jnp.floor((codes + 128) * 2.0**-8)
    return jnp.stack([high, codes - 256 * high]).astype(jnp.bfloat16)
