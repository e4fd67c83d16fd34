"""What ``make_layers`` and ``VGG`` can do besides the paper's networks: early pools, patches, GELU."""

import numpy as np
import pytest
import torch
from test_speed import network
from torch import nn

from vgg_course.vgg import VGG, make_layers


class TestLayers:
    CFG = (8, "M", 8, 8, "M", "M")

    def test_the_order_of_the_layers(self):
        def names(**options):
            return "".join(type(m).__name__[0] for m in make_layers(self.CFG, **options))

        assert names(batch_norm=True) == "CBRMCBRCBRMM"
        assert names(batch_norm=True, pool_first=True) == "CMBRCBRCMBRM"
        assert names(pool_first=True) == "CMRCRCMRM"

    def test_gelu(self):
        layers = make_layers((8, "M", 8), batch_norm=True, patch=2, gelu=True)
        assert [type(m).__name__ for m in layers] == ["Conv2d", "GELU", "MaxPool2d", "Conv2d", "BatchNorm2d", "GELU"]
        x = torch.tensor([-1.0, 0.0, 2.0])
        assert torch.allclose(layers[1](x), x * torch.distributions.Normal(0, 1).cdf(x), atol=1e-6)

    def test_the_first_patch(self):
        layers = make_layers((8, 8), batch_norm=True, patch=3)
        assert [type(m).__name__ for m in layers] == ["Conv2d", "ReLU", "Conv2d", "BatchNorm2d", "ReLU"]
        assert [layers[0].padding, layers[2].padding] == [(0, 0), (1, 1)]
        assert layers[1].inplace and layers[4].inplace  # no second copy of the largest maps
        assert layers(torch.zeros(1, 3, 32, 32)).shape == (1, 8, 30, 30)
        assert make_layers((8, 8), patch=2)[0].kernel_size == (2, 2)
        with pytest.raises(ValueError, match="such as 2, not 0"):
            make_layers((8, 8), patch=0)

    def test_a_patch_needs_some_pixels_more(self):
        model = network((8, "M", 8, "M"), patch=3)
        assert model(torch.zeros(2, 3, 6, 6)).shape == (2, 10)
        with pytest.raises(ValueError, match="5 pixels allow 1 halvings; .* at least 6 pixels"):
            model(torch.zeros(2, 3, 5, 5))

    def test_the_largest_value_of_each_map(self):
        model = VGG(make_layers((8, "M")), 10, global_pool="max", hidden=())
        x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 8, 8))).float()
        assert torch.equal(model(x), model.classifier(model.features(x).amax((2, 3))))
        with pytest.raises(ValueError, match="'max' or False, not 'min'"):
            VGG(make_layers((8,)), global_pool="min")

    def test_the_trained_network_computes_the_same(self):
        """As long as the scale of the norm is positive, as it is when it starts at 1."""
        usual, early = network(self.CFG).eval(), network(self.CFG, pool_first=True).eval()
        norms = [[m for m in model.modules() if isinstance(m, nn.BatchNorm2d)] for model in (usual, early)]
        for a, b in zip(*norms, strict=True):
            a.running_mean.normal_()
            a.weight.data.uniform_(0.5, 2)
            b.load_state_dict(a.state_dict())
        x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 16, 16))).float()
        assert torch.allclose(usual(x), early(x), atol=1e-6)


def test_pools_that_do_not_halve_are_no_halvings():
    pools = [nn.MaxPool2d(3, stride=1, padding=1) for _ in range(4)]
    model = VGG(nn.Sequential(*pools, nn.Conv2d(3, 4, 3, padding=1)), num_classes=2, global_pool=True, hidden=())
    assert model(torch.zeros(1, 3, 8, 8)).shape == (1, 2)
    model.features[0] = nn.MaxPool2d(2, ceil_mode=True)  # of one pixel it makes one pixel
    assert model(torch.zeros(1, 3, 1, 1)).shape == (1, 2)
    model.features[0] = nn.MaxPool2d((2, 2))
    with pytest.raises(ValueError, match="1 pixels allow 0 halvings; this cfg has 1"):
        model(torch.zeros(1, 3, 1, 1))
