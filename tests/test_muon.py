"""Muon at its edges; its steps by hand are in test_speed.py."""

from dataclasses import replace

import torch
from torch import nn

from vgg_course.speed import Muon, orthogonal
from vgg_course.training import FAST
from vgg_course.vgg import VGG, make_layers


def test_weight_decay_is_not_for_filters():
    """Their length is set anew in each step, so there is nothing to decay."""
    torch.manual_seed(0)
    start, gradient, after = torch.randn(4, 2, 3, 3), torch.randn(4, 2, 3, 3), []
    for decay in (0.0, 0.5):
        filters = nn.Parameter(start.clone())
        filters.grad = gradient.clone()
        Muon([filters], weight_decay=decay).step()
        after.append(filters.detach())
    assert torch.equal(*after)


def test_filters_without_a_gradient_stay_numbers():
    filters = nn.Parameter(torch.randn(4, 2, 3, 3))
    filters.grad = torch.zeros_like(filters)
    Muon([filters]).step()
    assert filters.isfinite().all()


def test_filters_of_zeros_stay_numbers():
    filters = nn.Parameter(torch.zeros(4, 2, 3, 3))
    filters.grad = torch.randn_like(filters)
    Muon([filters]).step()
    assert filters.isfinite().all()


def test_three_steps_of_newton_and_schulz():
    matrix = torch.randn(8, 20)
    assert torch.equal(orthogonal(matrix), orthogonal(matrix, steps=3))


def test_it_computes_in_short_numbers_only_where_the_run_does():
    network = VGG(make_layers([4]), 2, global_pool=True, hidden=())
    recipes = [replace(FAST, precision=precision, device="cpu") for precision in ("fp32", "bf16")]
    assert [recipe.make_optimizer(network).dtype for recipe in recipes] == [torch.float32, torch.bfloat16]
