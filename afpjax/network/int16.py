"""Sums of products of 16-bit integers, by products of bytes.

A code is x = 256·h + u, where h in [-128, 127] is its upper byte and u in [0, 255] its lower one:
every integer from -2^15 to 2^15 - 1 is one such pair, and a signed lower part would make an upper
one of 128. Units for bytes want both signed, so l = u - 128 in [-128, 127] stands for u, and the
128 is put back by sums over the places where x meets x' at all, which padding is not:

    H = Σ h·h'
    M = Σ (h·u' + u·h') = Σ h·l' + Σ l·h' + 128·(Σ h + Σ h')
    L = Σ u·u'          = Σ l·l' + 128·(Σ l + Σ l') + 2^14·N
    T = Σ x·x'          = 2^16·H + 2^8·M + L.

Σ h and Σ l are products by a kernel of ones with one neuron in each group, Σ h' and Σ l' of one
image of ones, and N, how many meet, is of both: beside four products of parts they are little.

Why T is exact, with n products and whatever the codes are:

- |H| <= 2^14·n, |M| <= 2·128·255·n < 2^16·n, and 0 <= L <= 255^2·n < 2^16·n. For n <= 2^15 all are
  less than 2^31. Sums of 32 bits on the way may wrap around: they are right modulo 2^32, and what
  comes out is the one integer in reach.
- Carried, L = 2^8·(L >> 8) + r with r in [0, 255], and M' = M + (L >> 8): |M'| <= (65280 + 254)·n <
  2^16·n <= 2^31 again. So T = 2^16·H' + R, with R in [0, 2^16) and |H'| <= 2^29 + 2^23.
- Where |H'| <= 2^24, H'·2^16 and R are float32 numbers, and their sum is rounded once. Elsewhere
  2·H' + 1, or 2·H' where R = 0, takes the place of T / 2^15: it has 26 bits or more, float32's
  neighbours and the places halfway between them are multiples of 2, and T / 2^15 lies on the same
  side of each. So T is rounded to float32 once in any case: T itself where |T| <= 2^24.
- A GPU's convolutions give each sum of bytes as float32. They are exact for n <= 2^10, as no sum
  is more than 2^14·n <= 2^24, in whatever order it is made.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jaxtyping import Array, Float, Int8, Int16, Int32

MOST_TERMS = 2**15
MOST_IN_FLOAT32 = 2**10

#: (left, right) -> sums of products of bytes, int32 or whole numbers in float32.
OfBytes = Callable[[Int8[Array, "..."], Int8[Array, "..."]], Array]


def multiply(
    primitive: core.Primitive,
    params: dict[str, Any],
    left: Int16[Array, "..."],
    right: Int16[Array, "..."],
    of_bytes: OfBytes,
) -> Float[Array, "..."]:
    """What a convolution or `dot_general` of these parameters gives, rounded to float32 once.

    `of_bytes` is the same product of bytes.
    """

    def sums(a: Int8[Array, "..."], b: Int8[Array, "..."]) -> Int32[Array, "..."]:
        return of_bytes(a, b).astype(jnp.int32)

    alike = _Alike(primitive, params, left, right)
    (high, low), both = _parts(left), jnp.stack(_parts(right))
    of_both = jax.vmap(sums, in_axes=(None, 0))  # one product by twice the channels
    (high_high, high_low), (low_high, low_low) = of_both(high, both), of_both(low, both)
    of_high, of_low = of_both(alike.left, both)
    of_high += alike.repeat(sums(high, alike.right))
    of_low += alike.repeat(sums(low, alike.right) + 128 * sums(alike.left, alike.right))
    return _rounded(high_high, high_low + low_high + 128 * of_high, low_low + 128 * of_low)


def _parts(codes: Int16[Array, "..."]) -> tuple[Int8[Array, "..."], Int8[Array, "..."]]:
    """h and l: the lower byte's highest bit turned over takes 128 off."""
    return (codes >> 8).astype(jnp.int8), (codes ^ 128).astype(jnp.int8)


class _Alike:
    """Operands of ones, one image of them and one neuron a group, that meet as the codes do."""

    def __init__(
        self, primitive: core.Primitive, params: dict[str, Any], left: Array, right: Array
    ) -> None:
        of_left, of_right = [*left.shape], [*right.shape]
        self._axis, self._times, numbers = 0, 1, params["dimension_numbers"]
        if primitive.name == "dot_general":
            for shape, *met in zip((of_left, of_right), *numbers, strict=True):
                free = set(range(len(shape))).difference(*met)
                for axis in free:
                    shape[axis] = 1
        else:
            images = params["batch_group_count"]
            neurons = params["feature_group_count"] * images
            of_left[numbers.lhs_spec[0]], of_right[numbers.rhs_spec[0]] = images, neurons
            self._axis = numbers.out_spec[1]
            self._times = right.shape[numbers.rhs_spec[0]] // neurons
        # Behind the barrier XLA does not work out at compile time, slowly, what they give.
        ones = (np.ones(shape, np.int8) for shape in (of_left, of_right))
        self.left, self.right = lax.optimization_barrier(tuple(map(jnp.asarray, ones)))

    def repeat(self, made: Int32[Array, "..."]) -> Int32[Array, "..."]:
        """What each group's one neuron gave, for every neuron of the group."""
        return made if self._times == 1 else jnp.repeat(made, self._times, self._axis)


def _rounded(
    high: Int32[Array, "..."], middle: Int32[Array, "..."], low: Int32[Array, "..."]
) -> Float[Array, "..."]:
    """2^16·high + 2^8·middle + low, rounded to float32 once."""
    middle += low >> 8
    high += middle >> 8
    rest = (middle & 255) << 8 | (low & 255)
    near = high.astype(jnp.float32) * 2.0**16 + rest.astype(jnp.float32)
    far = (2 * high | jnp.minimum(rest, 1)).astype(jnp.float32) * 2.0**15
    return jnp.where(abs(high) <= 2**24, near, far)
