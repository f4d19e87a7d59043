"""Modules of PyTorch as networks: the same logits, the module's own names, the module untouched."""

import sys

import numpy as np
import pytest

from afpjax.inputs.errors import InputError
from afpjax.network.onnx import from_torch


def test_without_pytorch_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        InputError, match=r"PyTorch is not installed; pip install 'afpjax\[torch\]'"
    ):
        from_torch(None, None)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture(scope="module")
def nets(torch):
    """Convolutions with batch norm and a branch, a dense network, a transformer's layer."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=width)

        def forward(self, x):
            return torch.relu(x + self.conv2(torch.relu(self.bn1(self.conv1(x)))))

    class Convolutions(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.blocks = nn.Conv2d(3, 8, 3, 2), nn.Sequential(Block(8), Block(8))
            self.drop, self.fc = nn.Dropout(), nn.Linear(8, 10)

        def forward(self, x):
            return self.fc(self.drop(self.blocks(self.stem(x)).mean((2, 3))))

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, 16, 4, 4)
            self.encoder = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
            self.head = nn.Linear(16, 5)

        def forward(self, x):
            return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))

    torch.manual_seed(0)
    return {
        "convolutions": (Convolutions(), (3, 3, 32, 24), "blocks.0.conv1"),
        "dense": (nn.Sequential(nn.Linear(12, 8), nn.GELU(), nn.Linear(8, 4)), (5, 12), "2"),
        "tokens": (Tokens(), (2, 3, 16, 16), "encoder.linear1"),
    }


@pytest.mark.parametrize("name", ["convolutions", "dense", "tokens"])
def test_a_module_gives_its_own_logits_under_its_own_names(torch, nets, name, capfd):
    module, shape, layer = nets[name]
    module.train()
    sample = torch.randn(*shape)
    network = from_torch(module, sample)
    assert module.training and all(part.training for part in module.modules())
    assert capfd.readouterr() == ("", "")
    assert layer in [each.name for each in network.layers]
    module.eval()
    with torch.no_grad():
        wanted = module(sample).numpy()
    found = np.asarray(network(np.moveaxis(sample.numpy(), 1, -1)))
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


def test_what_cannot_be_a_network_is_refused_in_a_line(torch):
    linear = torch.nn.Linear(3, 2)
    for arguments, message in (
        ((3, 1), "^module: needs a torch.nn.Module, got int"),
        ((linear, "x"), "^sample: no array of numbers"),
        ((linear, np.zeros((1, 4))), r"^sample: the module does not take \[1, 4\]"),
        ((torch.nn.ReLU(), np.zeros((1, 4))), "no convolution or dense layer"),
    ):
        with pytest.raises(InputError, match=message) as raised:
            from_torch(*arguments)
        assert "\n" not in str(raised.value)
