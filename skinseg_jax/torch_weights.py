"""PyTorch weights to ours and back.

python -m skinseg_jax.torch_weights --weights FILE --config configs/x.py \
  --workdir DIR
python -m skinseg_jax.torch_weights --export FILE --workdir DIR \
  [--checkpoint best|last|STEP] [--naming NAME]

Tensors are named as in the network's twin (naming 'twin'), such as the Unet of
segmentation-models-pytorch. The paper's U-Net has three namings: 'skinseg' (its
twin, scripts/torch_reference.py), 'aladdinpersson' (the UNET of
aladdinpersson/Machine-Learning-Collection) and 'milesial' (the UNet of
milesial/Pytorch-UNet with bilinear=False). A file is .safetensors, or .pt or
.pth, which needs PyTorch; .pth.tar is read, not written.

There and back, every weight and statistic keeps its bits. The one exception is
num_batches_tracked, which counts training steps: it is 0 afterwards. Nothing
here keeps it, and PyTorch uses it for batch norms with momentum=None alone.
"""

import argparse
import pathlib
import sys

from flax import nnx

from skinseg_jax import main
from skinseg_jax.inference import trained_model
from skinseg_jax.runtime import errors
from skinseg_jax.training import imported_run
from skinseg_jax.weights import tensor_files, torch_layouts


def export_run(
  workdir: pathlib.Path, *, checkpoint: str, path: pathlib.Path, naming: str
) -> int:
  """Writes a checkpoint's weights for PyTorch; returns its step.

  Raises:
    InputError: If there is no such checkpoint, the naming does not fit the
      network, or `path` cannot be written.
  """
  model = trained_model.load(workdir, checkpoint)
  network = nnx.merge(model.graphdef, model.state)
  tensor_files.write(path, torch_layouts.from_flax(network, naming=naming))
  return model.step


def run(argv: list[str]) -> None:
  """Parses the command line and converts."""
  parser = argparse.ArgumentParser(
    prog='python -m skinseg_jax.torch_weights',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  what = parser.add_mutually_exclusive_group(required=True)
  what.add_argument('--weights', type=pathlib.Path, help='file to read')
  what.add_argument('--export', type=pathlib.Path, help='file to write')
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--checkpoint', default='last', help='with --export')
  parser.add_argument('--naming', default='twin', choices=torch_layouts.NAMINGS)
  args, rest = parser.parse_known_args(argv[1:])
  if args.weights:
    # --config and its overrides are read as for training.
    config, _ = main.parse([argv[0], *rest])
    imported_run.import_run(args.weights, config, args.workdir)
    print(f'{args.weights} is now step 0 of {args.workdir}')
    return
  if rest:
    raise errors.InputError(f'not understood: {" ".join(rest)}')
  step = export_run(
    args.workdir,
    checkpoint=args.checkpoint,
    path=args.export,
    naming=args.naming,
  )
  print(f'step {step} of {args.workdir} is now {args.export}')


if __name__ == '__main__':
  errors.exit_with_message(run, sys.argv)
