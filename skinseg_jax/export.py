"""Writes a trained model in a form that others can use.

python -m skinseg_jax.export --format FORMAT --output DIR [--workdir DIR]

Without --workdir, the model that comes with skinseg_jax is exported.

huggingface: a folder for the Hugging Face hub with `README.md` (the model card
with its scores), `config.json`, `model.json` and `model.safetensors`. `predict`
takes such a folder as --workdir, and so does `evaluate` with --output. Nothing
is uploaded. Paths of this machine are left out.

onnx, stablehlo, tflite, savedmodel: the network for a program without Flax.
Pictures go in as uint8, probabilities come out. The batch size is free. A
tflite file takes one picture at a time. Beside the file are `model.json`, which
describes it, and `example.py`, which uses it. Its probabilities are compared
with those of Flax before the folder is written. onnx is for ONNX Runtime,
stablehlo for JAX alone, tflite for LiteRT on phones, savedmodel for TensorFlow.

--precision float16 or int8 makes a smaller ONNX file. It is written only if the
pooled Dice of the validation images falls by at most 0.001. A model without a
run also needs --data_dir.

web: a page that outlines pictures in the browser, without a server. It needs
the files of onnxruntime-web; --runtime_dir names their folder.
"""

import argparse
import dataclasses
import functools
import pathlib
import shutil
import sys
from typing import Any

from skinseg_jax import config as config_lib
from skinseg_jax.exporting import portable, web_runtime
from skinseg_jax.runtime import errors, flags, paths
from skinseg_jax.weights import shared_model

# Files are written here first, inside the output.
_PARTIAL = '.partial'


def main(argv: list[str]) -> None:
  """Parses the command line and writes the folder.

  Raises:
    InputError: If the run cannot be read or the folder cannot be written to.
  """
  args = _parse(argv)
  args.workdir = shared_model.chosen(args.workdir)
  config_lib.load(args.workdir / 'config.json')  # Is it a run?
  if args.format != 'huggingface':
    portable.check_installed(args.format)
  shared_model.keep_out(args.workdir, args.output)
  if args.format == portable.WEB:
    web_runtime.check(args.runtime_dir)
  elif args.runtime_dir is not None:
    raise errors.InputError(
      f'--runtime_dir is for --format web, not {args.format}; leave it out.'
    )
  _check_data(args)
  try:
    args.output.mkdir(parents=True, exist_ok=True)
    empty = all(path.name == _PARTIAL for path in args.output.iterdir())
  except OSError as error:
    raise errors.InputError(
      f'cannot write to {args.output}: {error.strerror}; give another --output.'
    ) from error
  if not empty:
    raise errors.InputError(
      f'{args.output} is not empty; give a new folder as --output.'
    )
  step = _export(args)
  print(f'exported step {step} of {args.workdir} to {args.output}')


def _check_data(args: argparse.Namespace) -> None:
  """Checks the flags around --precision.

  Raises:
    InputError: If they do not fit the format or the folder of the model.
  """
  workdir, reduced = args.workdir, args.precision != 'float32'
  if reduced and args.format != 'onnx':
    raise errors.InputError(
      f'--precision {args.precision} is for --format onnx, not {args.format};'
      ' leave it out.'
    )
  if args.data_dir and not (reduced and shared_model.is_one(workdir)):
    raise errors.InputError(
      '--data_dir is for --precision float16 or int8 of a model without a run;'
      ' leave it out.'
    )
  if reduced and shared_model.is_one(workdir):
    if not (workdir / 'split.csv').is_file():
      raise errors.InputError(
        f'{workdir} does not say which images it was trained on; give the'
        ' folder of its run as --workdir, or leave --precision out.'
      )
    if args.data_dir is None:
      raise errors.InputError(
        f'--precision {args.precision} needs the images that the model was'
        ' trained and validated on: give --data_dir, where HAM10000 is'
        ' prepared.'
      )


def _export(args: argparse.Namespace) -> int:
  """Writes the folder; returns the step of the checkpoint.

  After an error the folder is as it was.

  Args:
    args: From `_parse`; the output is an existing folder.

  Raises:
    InputError: If the checkpoint cannot be read or exported, or the folder
      cannot be written to.
  """
  output = args.output
  partial = output / _PARTIAL
  try:
    shutil.rmtree(partial, ignore_errors=True)  # Of an export that was killed.
    partial.mkdir()
    if args.format == 'huggingface':
      step = _write_shared(args.workdir, args.checkpoint, partial)
    else:
      step = _write_portable(partial, args)
    # model.json is moved last, so a folder that has it is complete.
    for path in sorted(partial.iterdir(), key=lambda p: p.name == 'model.json'):
      path.rename(output / path.name)
  except OSError as error:
    raise errors.InputError(
      f'cannot write to {output}: {error.strerror}; give another --output.'
    ) from error
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  return step


def _write_portable(output: pathlib.Path, args: argparse.Namespace) -> int:
  # Imported here, because the import takes seconds.
  from skinseg_jax.evaluation import shared_models
  from skinseg_jax.exporting import reduced, web_page
  from skinseg_jax.inference import trained_model
  from skinseg_jax.reporting import model_card

  model = trained_model.load(args.workdir, args.checkpoint)
  about: dict[str, Any] = {'licence': model_card.licence(model.config)}
  replace = None
  if args.precision != 'float32':
    replace = functools.partial(
      reduced.replace,
      precision=args.precision,
      model=model,
      run_data=shared_models.open_data(
        args.workdir, model.config, args.data_dir
      ),
    )
  if model.config.evaluation.test_time_augmentation != 'off':
    print(
      'the file predicts each picture once, without its mirror images; the'
      ' scores of the run, which are with them, are left out'
    )
  elif replace is None:  # The scores are of float32.
    about['scores'] = model_card.scores(args.workdir, model.step)['scores']
  if args.format == portable.WEB:
    difference, size = web_page.write(output, model, about, args.runtime_dir)
    if size > web_page.SINGLE_FILE_LIMIT:
      print(
        f'single_file.html was not written: it would have {size / 2**20:.0f}'
        f' MiB, more than {web_page.SINGLE_FILE_LIMIT / 2**20:.0f}'
      )
      if not shared_model.is_one(args.workdir):
        print(
          'export with --format huggingface first, and give that folder as'
          ' --workdir: its weights take half the space'
        )
  else:
    description = portable.write(
      output, args.format, model, about, replace=replace
    )
    difference = description['largest_difference_to_flax']
    if found := description.get('validation'):
      print(
        f'pooled Dice on {found["images"]:,} validation images:'
        f' {found["dice_float32"]:.4f} in float32, {found["dice"]:.4f} in'
        f' {args.precision} (change {-found["dice_loss"]:+.4f})'
      )
  print(f'largest difference to Flax in a probability: {difference:.2g}')
  return model.step


def _write_shared(
  workdir: pathlib.Path, checkpoint: str, output: pathlib.Path
) -> int:
  # Imported here, because the import takes seconds.
  from flax import nnx

  from skinseg_jax.evaluation import shared_models
  from skinseg_jax.inference import trained_model
  from skinseg_jax.quality import expected_dice
  from skinseg_jax.reporting import model_card
  from skinseg_jax.run import review_file
  from skinseg_jax.weights import model_folder

  model = trained_model.load(workdir, checkpoint)
  if shared_model.is_one(workdir):
    model_folder.copy(workdir, output)
    return model.step
  model_card.write(output / 'README.md', workdir, model)
  shared_models.keep_split(workdir, model.config, output)
  model_folder.write(
    output,
    _without_paths(model.config),
    nnx.merge(model.graphdef, model.state),
    shared_models.details(workdir, model.step),
  )
  review = review_file.of_model(workdir, model.identity())
  if review is not None:
    expected_dice.write(output, review)
  return model.step


def _without_paths(config: config_lib.Config) -> config_lib.Config:
  """The config without what names files of this machine."""
  data, default = config.data, config_lib.DataConfig()
  cleared: dict[str, Any] = {
    'raw_dir': '', 'data_dir': default.data_dir, 'metadata_csv': ''
  }  # fmt: skip
  if data.source == 'folder':
    cleared |= {'images_dir': 'images', 'masks_dir': 'masks'}
  if data.split not in config_lib.SPLITS:
    cleared['split'] = 'split.csv'
  weights = config.model.encoder_weights
  return dataclasses.replace(
    config,
    data=dataclasses.replace(data, **cleared),
    model=dataclasses.replace(
      config.model, encoder_weights='imagenet' if weights == 'imagenet' else ''
    ),
    train=dataclasses.replace(config.train, init_from=''),
  )


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = flags.parser('export', __doc__)
  path: dict[str, Any] = {'type': paths.user_path, 'metavar': 'DIR'}
  add = parser.add_argument
  flags.add_workdir(parser)
  add(
    '--format',
    required=True,
    choices=['huggingface', *portable.FORMATS, portable.WEB],
    help='what to write',
  )
  add('--output', required=True, help='new folder to write', **path)
  add(
    '--precision',
    default='float32',
    choices=['float32', 'float16', 'int8'],
    help='number type of weights and results in an ONNX file; default: float32',
  )
  where = 'where HAM10000 is prepared; for --precision of a model without a run'
  add('--data_dir', help=where, **path)
  flags.add_checkpoint(parser)
  add(
    '--runtime_dir',
    help='with --format web: folder with the files of onnxruntime-web'
    f' {web_runtime.VERSION}',
    **path,
  )
  return parser.parse_args(argv[1:])


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
