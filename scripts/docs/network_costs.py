"""Counts parameters and multiply-adds of every network.

python scripts/docs/network_costs.py \
  --output docs/benchmarks/network_costs.json

Prints the table of docs/reference/networks.md. Nothing is computed or compiled.
A multiply-add is one product in a convolution or matrix product, for one image.
Resizing, pooling and normalisation are not counted, as usual. In a transposed
convolution, each input pixel is multiplied with the whole kernel.
"""

import argparse
import json
import math
import pathlib
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import jax.extend.core as jax_core
import jax.numpy as jnp
import network_shapes
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax import config_rules
from skinseg_jax.models import build, resampling
from skinseg_jax.models.cpu import switch
from skinseg_jax.runtime import errors

# The two sizes of each network: without an encoder, and with one.
WIDTHS = (16, 64)
ENCODERS = ('efficientnet_lite0', 'resnet34')


def rows() -> list[dict[str, Any]]:
  """Every network in both sizes: the fields of its config."""
  found = []
  for name in build.ARCHITECTURES:
    needs = config_rules._NETWORKS[name].encoder
    if needs != 'always':
      found += [{'architecture': name, 'width': width} for width in WIDTHS]
    if needs != 'never':
      found += [{'architecture': name, 'encoder': each} for each in ENCODERS]
  return found


def costs(config: config_lib.ModelConfig) -> dict[str, int]:
  """Costs of one network.

  Returns:
    `parameters`, without running statistics; `multiply_adds` of one image; and
    `convolution_output_bytes`, of all results of its convolutions and matrix
    products in float32. Training keeps about these for the gradient.
  """
  model = network_shapes.abstract(config)
  graphdef, state = build.in_evaluation_mode(model), nnx.state(model)
  predict = lambda state, images: nnx.merge(graphdef, state)(images)
  with (
    switch.cpu_forms(False),
    mock.patch.object(resampling, '_along_both_axes', _resized),
  ):
    jaxpr = jax.make_jaxpr(predict)(state, network_shapes.images())
  products = [*_products(jaxpr.jaxpr)]
  parameters = jax.tree.leaves(nnx.state(model, nnx.Param))
  return {
    'parameters': sum(leaf.size for leaf in parameters),
    'multiply_adds': sum(count for count, _ in products),
    'convolution_output_bytes': sum(4 * size for _, size in products),
  }


def _resized(x, rows, columns):
  """The shape of a resized image, without the products that resize it."""
  return jnp.zeros((x.shape[0], len(rows), len(columns), x.shape[3]), x.dtype)


def _products(jaxpr: Any) -> Iterator[tuple[int, int]]:
  """Multiply-adds and size of the result of each product."""
  for equation in jaxpr.eqns:
    inputs = [var.aval for var in equation.invars]
    size = sum(var.aval.size for var in equation.outvars)
    if equation.primitive.name == 'conv_general_dilated':
      image, kernel = inputs
      if math.prod(equation.params['lhs_dilation']) > 1:
        # Transposed: each input pixel is multiplied with the whole kernel.
        yield image.size // image.shape[-1] * kernel.size, size
      else:
        yield size * (kernel.size // kernel.shape[-1]), size
    elif equation.primitive.name == 'dot_general':
      (contracted, _), _ = equation.params['dimension_numbers']
      yield size * math.prod(inputs[0].shape[i] for i in contracted), size
    for inner in jax_core.jaxprs_in_params(equation.params):
      yield from _products(inner)


def table(measured: list[dict[str, Any]]) -> str:
  """Both sizes of each network side by side, as Markdown."""
  cells: dict[str, list[str]] = {}
  for row in measured:
    kind = 'encoder' if 'encoder' in row else 'width'
    name = f'`{row["architecture"]}`'
    if row['architecture'] == 'unet' and kind == 'encoder':
      name += ' with an encoder'
    cells.setdefault(name, []).extend(
      [f'{row["parameters"]:,}', f'{row["multiply_adds"] / 1e9:.2f}']
    )
  lines = [
    '| network | parameters, small | multiply-adds, small, in 10⁹'
    ' | parameters, large | multiply-adds, large, in 10⁹ |',
    '|---|---|---|---|---|',
    *(f'| {name} | {" | ".join(row)} |' for name, row in cells.items()),
  ]
  return '\n'.join(lines)


def main(argv: list[str]) -> None:
  """Counts, writes the file and prints the table."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument(
    '--output', type=pathlib.Path, required=True, help='json to write'
  )
  args = parser.parse_args(argv[1:])
  measured = [
    {**row, **costs(network_shapes.model_config(**row))} for row in rows()
  ]
  content = {'image_size': network_shapes.IMAGE_SIZE, 'networks': measured}
  args.output.write_text(json.dumps(content, indent=1) + '\n')
  print(table(measured))


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
