"""Weights that do not fit a network, and what the messages say to do then."""

import re

import numpy as np
import pytest
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.models import build
from skinseg_jax.runtime import errors
from skinseg_jax.weights import torch_layouts


def _network(**model):
  return build.create(config_lib.ModelConfig(**model), seed=0)


@pytest.fixture(scope='module')
def unet():
  return _network(width=1)


@pytest.fixture(scope='module')
def segnet():
  return _network(architecture='segnet', width=1)


def _assert_fits(weights, model):
  state = torch_layouts.to_flax(weights, model)
  back = torch_layouts.from_flax(nnx.merge(nnx.graphdef(model), state))
  assert all(np.array_equal(back[name], weights[name]) for name in weights)


def test_remedy_of_a_naming_of_the_unet(segnet):
  with pytest.raises(errors.InputError) as caught:
    torch_layouts.from_flax(segnet, naming='milesial')
  (naming,) = re.findall(r'use --naming (\w+)', str(caught.value))
  _assert_fits(torch_layouts.from_flax(segnet, naming=naming), segnet)


# Only the first has a tensor that the U-Net has as well.
@pytest.mark.parametrize('architecture', ['segnet', 'attention_unet'])
def test_remedy_of_weights_of_another_network(unet, architecture):
  theirs = {'architecture': architecture, 'width': 2}
  weights = torch_layouts.from_flax(_network(**theirs))
  with pytest.raises(
    errors.InputError, match='For weights of another network,\\s+set model.arch'
  ):
    torch_layouts.to_flax(weights, unet)
  _assert_fits(weights, _network(**theirs))


@pytest.mark.parametrize(
  'theirs', [{'width': 1}, {'architecture': 'segnet', 'width': 2}]
)
def test_remedy_of_weights_that_fit_another_config(segnet, theirs):
  weights = torch_layouts.from_flax(_network(**theirs))
  with pytest.raises(errors.InputError, match='Set model.*to theirs') as caught:
    torch_layouts.to_flax(weights, segnet)
  named = re.findall(r'model\.(\w+)', str(caught.value).splitlines()[-1])
  assert set(theirs) <= set(named)
  _assert_fits(weights, _network(**theirs))


def test_remedy_of_another_width(unet):
  weights = torch_layouts.from_flax(_network(width=2))
  with pytest.raises(errors.InputError) as caught:
    torch_layouts.to_flax(weights, unet)
  (width,) = re.findall(r'look like model\.width=(\d+)', str(caught.value))
  _assert_fits(weights, _network(width=int(width)))


def test_remedy_of_weights_that_are_not_finite(unet):
  before = torch_layouts.from_flax(unet)
  diverged = {**before, 'head.bias': np.full(1, np.nan, np.float32)}
  with pytest.raises(errors.InputError, match='a file that was saved before'):
    torch_layouts.to_flax(diverged, unet)
  _assert_fits(before, unet)
