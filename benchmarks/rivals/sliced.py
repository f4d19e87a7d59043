# pyright: reportMissingImports=false
"""Bit-sliced masks in PyTorch, the fastest that was found there: 64 coins from each random word.

A probability of k / 2^n is reached by n random words: from the lowest bit of k upwards, OR where
the bit is 1, AND where it is 0 (each halves the probability so far, and OR adds a half). All bits
of a word are such coins at once. Four of them make an element's mask, so an element takes 32 random
bits at n = 8, where the loop over bits takes 128.
"""

import torch
from torch import Tensor

from benchmarks.rivals.plain import BITS, RATE

LEVELS = 8
RATE_MET = round(RATE * 2**LEVELS) / 2**LEVELS  # 51 / 256
_PER_WORD = 64 // BITS  # elements


def sliced(name: str, target: str, codes: Tensor) -> Tensor:
    """A mask of the shape of `codes`; a `plain.Draw`."""
    words = coins(-(-codes.numel() // _PER_WORD), codes.device)
    parts = words.view(torch.int16)  # 16 coins each, of four elements
    masks = torch.stack([(parts >> shift) & (2**BITS - 1) for shift in range(0, 16, BITS)])
    return masks.view(-1).as_strided(codes.shape, codes.stride())


def coins(words: int, device: torch.device) -> Tensor:
    """int64 words all of whose bits are 1 with probability `RATE_MET`, independently."""
    heads = round(RATE * 2**LEVELS)
    made = torch.zeros(words, dtype=torch.int64, device=device)
    for level in range(LEVELS):
        fresh = torch.empty_like(made).random_(-(2**63), None)
        made = made | fresh if heads >> level & 1 else made & fresh
    return made
