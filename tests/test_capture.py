"""torch.compile takes each network as one graph: no Python of ours stands between its kernels."""

import pytest
import textbook
import torch

from manas_lite.networks.backbone import Backbone
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet, SuperNet
from manas_lite.networks.space import SearchSpace
from manas_lite.photos.folding import fold

SPACE = SearchSpace((8, 12), 1)

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _fresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def networks() -> dict[str, Backbone]:
    derived = DerainNet(Genotype.random(SPACE, 0)).eval()
    return {"supernet": SuperNet(SPACE).train(), "derived": derived, "folded": fold(derived)}


@pytest.mark.parametrize("name", ["supernet", "derived", "folded"])
@pytest.mark.parametrize("size", [(16, 24), (15, 21)])
def test_one_graph(name, size):
    """The backend only replays what was captured: breaks are errors, and so are other values."""
    net = networks()[name]
    textbook.randomise(net)
    x = torch.rand((2, 3, *size), generator=torch.Generator().manual_seed(0))
    state = {key: value.clone() for key, value in net.state_dict().items()}
    expected = net(x)
    net.load_state_dict(state)
    captured = torch.compile(net, backend="eager", fullgraph=True)(x)
    torch.testing.assert_close(captured, expected)


def test_gradients_pass_through_the_graph():
    net = SuperNet(SPACE).train()
    x = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    (net(x) ** 2).sum().backward()
    expected = {name: p.grad.clone() for name, p in net.named_parameters()}
    net.zero_grad()
    (torch.compile(net, backend="aot_eager", fullgraph=True)(x) ** 2).sum().backward()
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-3, atol=1e-5, msg=name)
