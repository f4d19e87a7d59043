"""Five lines from a PyTorch module to a fault campaign.  Needs: pip install 'afpjax[torch]'

python examples/from_pytorch.py
"""

import numpy as np
import torch
from sklearn.datasets import load_digits

import afpjax

pixels, digits = load_digits(return_X_y=True)
pixels = torch.tensor(pixels / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)

torch.manual_seed(0)
module = torch.nn.Sequential(
    torch.nn.Conv2d(1, 16, 3, padding=1),
    torch.nn.ReLU(),
    torch.nn.MaxPool2d(2),
    torch.nn.Flatten(),
    torch.nn.Linear(256, 10),
)
optimiser = torch.optim.Adam(module.parameters(), 1e-2)
for _ in range(60):
    loss = torch.nn.functional.cross_entropy(module(pixels[:1000]), torch.tensor(digits[:1000]))
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

network = afpjax.from_torch(module, pixels[:1])
images = np.moveaxis(pixels.numpy(), 1, -1)  # channels last
int8 = afpjax.quantize(network, afpjax.QFormat(8, scale="channel"), images[:1000])
result = afpjax.campaign(int8, images[1000:], digits[1000:], margin=0.05)
for cell in sorted(result.cells, key=lambda cell: -cell.sdc_rate.value)[:5]:
    print(f"layer {cell.layer}, bit {cell.bit}: {cell.sdc_rate.value:.1%} change their class")
