"""Layers in 64-bit integers of NumPy: an oracle that shares nothing with the package."""

import numpy as np


def convolve(image, kernel, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1):
    """[B, H, W, I] by [h, w, I / groups, O] in int64: a loop over groups and taps."""
    padded = np.pad(image, [(0, 0), *padding, (0, 0)])
    taps, depth, outputs = kernel.shape[:2], kernel.shape[2], kernel.shape[3]
    rows, columns = (
        (padded.shape[axis + 1] - (taps[axis] - 1) * dilation[axis] - 1) // stride[axis] + 1
        for axis in range(2)
    )
    sums = np.zeros((len(image), rows, columns, outputs), np.int64)
    for g in range(groups):
        ins = slice(g * depth, (g + 1) * depth)
        outs = slice(g * outputs // groups, (g + 1) * outputs // groups)
        for y, x in np.ndindex(*taps):
            seen = padded[:, y * dilation[0] :, x * dilation[1] :, ins]
            seen = seen[:, :: stride[0], :: stride[1]][:, :rows, :columns]
            sums[..., outs] += seen @ kernel[y, x, :, outs]
    return sums
