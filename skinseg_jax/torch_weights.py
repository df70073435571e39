"""Converts weights of a network from and to PyTorch.

python -m skinseg_jax.torch_weights --weights FILE --config configs/x.py \
  --workdir DIR
python -m skinseg_jax.torch_weights --export FILE --workdir DIR \
  [--checkpoint best|last|STEP] [--naming NAME]

Tensors have the names of the network's PyTorch twin (naming 'twin'), such as
the Unet of segmentation-models-pytorch. The paper's U-Net has three namings:
'skinseg' (its twin, scripts/torch_reference.py), 'aladdinpersson' (the UNET of
aladdinpersson/Machine-Learning-Collection) and 'milesial' (the UNet of
milesial/Pytorch-UNet with bilinear=False). The reader recognises them; --naming
chooses one for --export. Files are .safetensors, .pt or .pth; writing the last
two needs PyTorch. .pth.tar files can be read but not written.

A round trip keeps every bit of all weights and statistics. The one exception is
num_batches_tracked, a count of training steps, which becomes 0. PyTorch uses it
only for batch norms with momentum=None.
"""

import pathlib
import sys

from skinseg_jax import main
from skinseg_jax.runtime import errors, flags, paths
from skinseg_jax.weights import shared_model, torch_names


def export_run(
  workdir: pathlib.Path, *, checkpoint: str, path: pathlib.Path, naming: str
) -> int:
  """Writes a checkpoint's weights for PyTorch; returns its step.

  Raises:
    InputError: If there is no such checkpoint, the naming does not fit the
      network, or `path` cannot be written.
  """
  from flax import nnx

  from skinseg_jax.inference import trained_model
  from skinseg_jax.weights import tensor_files, torch_layouts

  model = trained_model.load(workdir, checkpoint)
  network = nnx.merge(model.graphdef, model.state)
  tensor_files.write(path, torch_layouts.from_flax(network, naming=naming))
  return model.step


def run(argv: list[str]) -> None:
  """Parses the command line and converts."""
  parser = flags.parser('torch_weights', __doc__)
  what = parser.add_mutually_exclusive_group(required=True)
  what.add_argument(
    '--weights',
    type=paths.user_path,
    help='PyTorch file to read; requires --config',
  )
  what.add_argument(
    '--export', type=paths.user_path, help='PyTorch file to write'
  )
  parser.add_argument(
    '--workdir',
    type=paths.user_path,
    help='run folder: created with --weights, read with --export; default with'
    ' --export: the model that comes with skinseg_jax',
  )
  parser.add_argument(
    '--checkpoint',
    default='last',
    help='best, last or a step number to export; default: last',
  )
  parser.add_argument(
    '--naming',
    default='twin',
    choices=torch_names.NAMINGS,
    help='parameter names to export with; default: twin',
  )
  args, rest = parser.parse_known_args(argv[1:])
  if args.weights:
    if args.workdir is None:
      raise errors.InputError(
        '--weights requires --workdir DIR, the run folder to create.'
      )
    # Read --config and its overrides as for training.
    config, _ = main.parse([argv[0], *rest])
    main.check_packages(config)
    # Imported after the flags are checked, because the import takes seconds.
    from skinseg_jax.training import imported_run

    imported_run.import_run(args.weights, config, args.workdir)
    print(f'imported {args.weights} as step 0 of {args.workdir}')
    return
  if rest:
    raise errors.InputError(f'unknown arguments: {" ".join(rest)}')
  workdir = shared_model.chosen(args.workdir)
  step = export_run(
    workdir,
    checkpoint=args.checkpoint,
    path=args.export,
    naming=args.naming,
  )
  print(f'exported step {step} of {workdir} to {args.export}')


if __name__ == '__main__':
  errors.exit_with_message(run, sys.argv)
