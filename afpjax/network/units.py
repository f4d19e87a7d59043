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

`int8` units multiply codes of up to 8 bits as bytes and sum in 32 bits (`int8.py` on a CPU, where
nothing wraps around for n <= 2^16; longer sums stay on float32 units). T is the integer, and comes
out rounded to float32 once: T itself where |T| <= 2^24, which is where S <= 2^24 above all, beyond
off by no more than u·|T| <= n·u·S. On a GPU cuDNN's convolutions of int8 give float32, with the
bounds of one part above. Codes of 9 to 16 bits are two bytes each, and T is rounded once again:
`int16.py` proves it, for n <= 2^15, and n <= 2^10 in convolutions on a GPU. A NaN, which is no
code, is 0 on int8 units. It stays one on the others, where the layer has no faulty codes (a fault
makes 0 of it in fixed point): it can only come from what stands between layers, such as a
logarithm, as what layers make of codes is finite.

Which units a layer has on a CPU that multiplies bytes, `BY_LAYER`, was measured: CPU time on
float32 units by that on int8 units, encoding and all, of 64 images in two threads at once
(Xeon with AVX512-VNNI, 2 cores, jaxlib 0.10.2; the layer's square image after the channels).

    3x3, 3 to 16 channels @32  2.9    3x3, 64 @8         2.1    1x1, 16 to 96 @32           0.8
    3x3, 16 @32                1.3    3x3, 64 @32        1.6    1x1, 32 to 192 @16          0.9
    3x3, 16 to 32 @32, halved  1.2    3x3, 128 @16       2.0    1x1, 192 to 32 @16          2.2
    3x3, 32 @16                1.3    3x3, 256 @8        3.1    1x1, 256 @8                 2.2
    3x3, 32 to 64 @16, halved  1.6    3x3, 512 @4        3.2    dense, 256 to 256           0.9
    3x3, 3 to 64 @32           1.4    3x3, 512 @2        1.5    dense, 512 to 1000          1.5
    3x3 depthwise, 64 @16      0.1    5x5, 64 to 192 @15 2.0    dense, 4096 to 4096         1.7
    3x3 in 4 groups, 64 @16    0.2    tokens, 64 to 64   1.3    65 tokens, 192 to 768       1.9

With 16 images it is much the same. Where a dense layer sees its kernel once an image, that must be
cast in every call: 18.9 ms with one image by 4096 x 4096, of which float32 units take 4. At most
four images are therefore multiplied on float32 units there, codes in halves x = 16·h + l with h
in [-8, 8] and l in [-8, 7]: each sum is at most 2^10·n, exact for n <= 2^14, and 16·Σh·w + Σl·w is
T rounded once, as it is for more images. It takes 6.3 ms (512 x 1000: 0.27, of float32's 0.18).

Codes of 9 to 16 bits are four products of bytes, and a CPU keeps them on float32 units: CPU time on
these by that on int8 units, 64 images of 16 bits as above, is

    3x3, 64 @32                0.4    3x3, 128 @16       0.7    3x3, 512 @4                 0.7
    dense, 4096 to 4096        0.25   the same, one image 0.06

On accelerators bfloat16 is what they have, as no GPU has measured either. XLA's compiler for an
H100 makes 13 launches of 16-bit codes' convolution, 64 channels @32, on int8 units and 5 on
bfloat16's, with 259 and 320 MB of temporaries for 256 images.

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
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero
from jax.extend import core
from jaxtyping import Array, BFloat16, Float

from afpjax.inputs.errors import InputError
from afpjax.network import int8, int16
from afpjax.network.compiler import BY_LAYER, UNITS
from afpjax.network.layers import Layer

#: Primitives that multiply and sum.
LINEAR = ("conv_general_dilated", "dot_general")

ONE_PART = 9  # bits of the widest code that bfloat16 holds
TWO_PARTS = 16
MOST_IN_HALVES = 2**14  # products
BYTE = 8

#: A dense layer's on a CPU: int8 for more than `FEW` images in a call, float32 for fewer.
BY_IMAGES = "by images"
FEW = 4

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

    `units` is "float32", "bfloat16" or "int8"; codes of more than 16 bits stay on float32 units.
    The gradient is that of `linear` on float32 units: cotangents are no
    integers. Raises `InputError` for other units.
    """
    if units not in (*UNITS, BY_IMAGES):
        raise InputError(f"units: {units!r} is none of {', '.join(UNITS)}")
    if units == "bfloat16" and bits <= TWO_PARTS:
        return _on_narrow(linear, _in_two if bits > ONE_PART else _in_one, codes, kernel)
    if units == BY_IMAGES and bits <= BYTE:
        return _on_narrow(linear, _by_images, codes, kernel)
    if units == "int8" and bits <= BYTE:
        return _on_narrow(linear, _on_int8, codes, kernel)
    if units == "int8" and bits <= TWO_PARTS:
        return _on_narrow(linear, _on_two_int8, codes, kernel)
    return linear(codes, kernel)


def of_layer(units: str, layer: Layer, bits: int) -> str:
    """The units of one layer, where a network's are `units`: one of `UNITS`, or `BY_LAYER`.

    What comes out is one of `UNITS`, or `BY_IMAGES`.

    Sums that are too long for int8 units, `_most_terms`, are left to float32. `BY_LAYER` takes int8
    where that was measured to be faster on a CPU: see the table above.
    """
    exact = layer.fan_in <= _most_terms(layer, bits)
    if units == BY_LAYER:
        if not exact or bits > BYTE or not _faster_on_int8(layer):
            return "float32"
        one_place = layer.kind == "dense" and layer.macs == layer.weights
        return BY_IMAGES if one_place and layer.fan_in <= MOST_IN_HALVES else "int8"
    return "float32" if units == "int8" and not exact else units


def _most_terms(layer: Layer, bits: int) -> int:
    """How many products of codes int8 units sum, whatever the codes are."""
    if bits <= BYTE:
        return int8.MOST_TERMS
    on_gpu = layer.kind == "conv" and jax.default_backend() != "cpu"
    return int16.MOST_IN_FLOAT32 if on_gpu else int16.MOST_TERMS


def _faster_on_int8(layer: Layer) -> bool:
    """Whether copying windows and casting the kernel cost less than the products gain."""
    if layer.groups > 1 or layer.neurons < 16:
        return False
    if layer.kind == "dense":
        return layer.fan_in >= 64 and layer.macs >= 2**18
    return layer.fan_in >= 64 or (layer.input_channels <= 4 and len(layer.window) > 0)


def suits_ynnpack(layer: Layer) -> bool:
    """Whether YNNPACK is faster at a layer's float32 convolution than Eigen, on a CPU.

    CPU time of Eigen by YNNPACK's, 64 images in two threads at once (same machine as above): 3x3,
    3 to 64 channels @32 2.6, 24 @16 1.3, 32 @16 1.2, 64 @8 1.3, 64 @32 1.0 (one image 1.3), but 16
    @32 1.0, 128 @16 1.0, 64 to 128 @32 0.9, 5x5, 64 to 192 1.0, and 1x1, 64 @32 0.7.
    """
    several = len(layer.window) > 0 and max(layer.window) > 1
    return several and layer.groups == 1 and 24 <= layer.neurons <= 64


def bind(primitive: core.Primitive, params: dict[str, Any], left: Array, right: Array) -> Array:
    """A product of `LINEAR` of operands of one dtype, in the way that is right for it here.

    float32 gives float32, bfloat16 float32, int8 int32 or float32, and int16 float32.
    """
    if left.dtype == jnp.int16:
        return int16.multiply(primitive, params, left, right, partial(bind, primitive, params))
    if left.dtype == jnp.int8 and jax.default_backend() == "cpu":
        if primitive.name == "dot_general":
            return int8.dot_general(left, right, params["dimension_numbers"])
        if int8.convolves(params):
            return int8.convolve(params, left, right)
    return primitive.bind(left, right, **{**params, **_precision(primitive, left.dtype)})


def _precision(primitive: core.Primitive, dtype: Any) -> dict[str, Any]:
    """What a product of operands of a dtype must say: bfloat16 is summed in float32, int8 in int32,
    the others in themselves.

    float32 operands ask for the highest precision, or a GPU would cut them to TF32's 11 bits.
    bfloat16 operands have but 8, exact in either: XLA widens those of a convolution on a GPU to
    float32, and only with the default precision does it stay on tensor cores. cuDNN has no
    convolution of int8 that gives int32, but one that gives float32.
    """
    if dtype == jnp.bfloat16:
        return {"precision": None, "preferred_element_type": np.dtype(np.float32)}
    if dtype == jnp.int8:
        on_gpu = primitive.name == "conv_general_dilated" and jax.default_backend() != "cpu"
        wide = np.float32 if on_gpu else np.int32
        return {"precision": None, "preferred_element_type": np.dtype(wide)}
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


#: (linear, codes, kernel) -> what `linear` gives of them, worked out in narrower numbers.
Narrow = Callable[[Linear, Array, Array], Array]


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _on_narrow(linear: Linear, how: Narrow, codes: Array, kernel: Array) -> Array:
    return how(linear, codes, kernel)


def _on_narrow_jvp(linear: Linear, how: Narrow, primals: Any, tangents: Any) -> Any:
    (codes, kernel), (of_codes, of_kernel) = primals, tangents
    made = _on_narrow(linear, how, codes, kernel)
    # A zero that is known to be one is left out: it would cost a product more, and `vmap` might
    # give the kernel's a batch axis.
    terms = [] if isinstance(of_codes, SymbolicZero) else [linear(of_codes, kernel)]
    terms += [] if isinstance(of_kernel, SymbolicZero) else [linear(codes, of_kernel)]
    return made, sum(terms[1:], terms[0])


_on_narrow.defjvp(_on_narrow_jvp, symbolic_zeros=True)


def _in_one(linear: Linear, codes: Array, kernel: Array) -> Array:
    return linear(codes.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))


def _in_two(linear: Linear, codes: Array, kernel: Array) -> Array:
    # Products by twice the channels: jax batches one operand at a time into that, grouped
    # convolutions included, where a batch of both would become groups. Codes side by side would be
    # made twice, faults and all, or their masks be kept: in two arrays one pass makes both parts.
    own = jnp.stack(_parts(kernel))
    of_codes = [jax.vmap(linear, in_axes=(None, 0))(part, own) for part in _parts(codes)]
    (high, middle), (other, low) = of_codes
    return (high * 2.0**16 + (middle + other) * 2.0**8) + low


def _on_int8(linear: Linear, codes: Array, kernel: Array) -> Array:
    return linear(_whole(codes, jnp.int8), _whole(kernel, jnp.int8)).astype(jnp.float32)


def _by_images(linear: Linear, codes: Array, kernel: Array) -> Array:
    @custom_vmap
    def product(codes: Array, kernel: Array) -> Array:
        return _in_halves(linear, codes, kernel)

    @product.def_vmap
    def of_many(images: int, batched: Any, codes: Array, kernel: Array) -> tuple[Array, bool]:
        own = partial(_on_int8 if images > FEW else _in_halves, linear)
        axes = [0 if each else None for each in batched]
        return jax.vmap(own, in_axes=axes)(codes, kernel), True

    return product(codes, kernel)


def _in_halves(linear: Linear, codes: Array, kernel: Array) -> Array:
    """Codes of 8 bits in halves of 4, two rows by a kernel that is read once, as float32."""
    high = jnp.floor((codes + 8) * 2.0**-4)
    of_high, of_low = jax.vmap(linear, in_axes=(0, None))(
        jnp.stack([high, codes - 16 * high]), kernel
    )
    return 16 * of_high + of_low


def _on_two_int8(linear: Linear, codes: Array, kernel: Array) -> Array:
    return linear(_whole(codes, jnp.int16), _whole(kernel, jnp.int16))


def _whole(codes: Float[Array, "..."], dtype: Any) -> Array:
    """Codes as int8 or int16: beside 1.5·2^23 they are a float's last bytes, and cut out faster
    than cast (XLA's casts saturate). What is no number is 0."""
    beside = lax.bitcast_convert_type(codes + np.float32(1.5 * 2**23), jnp.int32)
    return beside.astype(dtype)


def _parts(codes: Float[Array, "..."]) -> tuple[BFloat16[Array, "..."], BFloat16[Array, "..."]]:
    """The high and the low part of each code."""
    high = jnp.floor((codes + 128) * 2.0**-8)
    return high.astype(jnp.bfloat16), (codes - 256 * high).astype(jnp.bfloat16)
