"""Predicts a mask for each image.

python -m skinseg_jax.predict --input PATH ... --output DIR [--workdir DIR ...]
python -m skinseg_jax.predict --input PATH ... --output DIR --method NAME

The mask of a file x.jpg is DIR/x.png; it has the size of its image. Folders are
searched with all folders below them, and their tree is kept: the mask of
p0/x.jpg is DIR/p0/x.png. DIR/predictions.csv has one row per image.

Without --workdir, the model that comes with skinseg_jax is used; with --method,
a classical method, which needs no training. Of several folders, the mean of the
models' probabilities is used. The config of a model says how images are
prepared. Files that cannot be read are listed in predictions.csv and skipped;
the exit code is then 3. The EXIF orientation is applied, so a mask fits its
image as viewers show it. No EXIF data is copied.

The same command resumes after an interruption: images that are done stay.
"""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from skinseg_jax import config as config_lib
from skinseg_jax.classical import catalog, parameters
from skinseg_jax.inference import inputs, outputs, postprocessing, table
from skinseg_jax.runtime import errors, flags, paths
from skinseg_jax.weights import ensemble_folder, shared_model

if TYPE_CHECKING:
  from skinseg_jax.inference import model_interface


def main(argv: list[str]) -> None:
  """Parses the command line and predicts."""
  args = _parse(argv)
  places = outputs.Outputs(
    masks=args.output,
    overlays=args.output / 'overlay' if args.overlay else None,
    probabilities=args.output / 'probability' if args.probability else None,
    uncertainties=args.output / 'uncertainty' if args.uncertainty else None,
  )
  done = table.Done(places, overwrite=args.overwrite)
  files = inputs.scan(args.input, places, done, overwrite=args.overwrite)
  if args.method is None:
    folders = args.workdir or [shared_model.chosen(None)]
    args.workdir = ensemble_folder.members(folders)
    for folder in args.workdir:
      config_lib.load(folder / 'config.json')  # Is it a run?
      shared_model.keep_out(folder, args.output)
  # Imported after the flags are checked, because the import takes seconds.
  from skinseg_jax.runtime import distributed

  with distributed.joined(
    args.coordinator, args.num_processes, args.process_id
  ):
    summary = _predict(args, places, files, done)
  if summary.skipped:
    sys.exit(errors.SKIPPED_FILES)


def _predict(
  args: argparse.Namespace,
  places: outputs.Outputs,
  files: inputs.Inputs,
  done: table.Done,
) -> table.Summary:
  """Predicts and prints what was done."""
  from skinseg_jax.inference import predictions
  from skinseg_jax.runtime import compilation, devices, distributed

  devices.use('auto')
  compilation.keep_programs()
  model = _model(args)
  cleaning = postprocessing.Steps(
    fill_holes=args.fill_holes,
    min_area=args.min_area,
    largest_component=args.largest_component,
  )
  options = predictions.Options(
    cleaning=cleaning,
    tile=args.tiles,
    review=_review(args, model),
    measures=args.measures,
    pixel_spacing=args.pixel_spacing,
  )
  _say_what_lacks(args, model, options)
  try:
    summary = predictions.predict(model, files, places, done, options)
  except OSError as error:
    raise errors.of_files(
      error,
      args.output,
      'choose another --output, or free some space and run the same command'
      ' again.',
    ) from error
  for note in files.notes:
    print(note)
  if summary.several.count:
    print(
      f'{summary.several.count} files hold several pictures; the first is'
      f' used:\n{summary.several}'
    )
  already = f'; {len(done)} were there already' if len(done) else ''
  by = args.method or f'checkpoint of step {model.step}'
  if len(model.members) > 1:
    by = f'mean of {len(model.members)} models'
  print(
    f'wrote {summary.predicted - len(done)} masks to {args.output}'
    f' ({by}){already}'
  )
  if summary.skipped and distributed.is_primary():
    print(
      f'skipped {summary.skipped} of {files.count} files; {table.NAME} lists'
      f' them:\n{summary.problems}',
      file=sys.stderr,
    )
  return summary


def _say_what_lacks(args: argparse.Namespace, model, options) -> None:
  if options.review and args.tiles:
    print('with --tiles there is no expected Dice')
  elif options.review and options.cleaning != postprocessing.Steps():
    print('the expected Dice is that of the masks before they are cleaned')
  if args.measures and (why := _without_range(args, model)):
    print(f'measures have no range: {why}')


def _without_range(
  args: argparse.Namespace, model: 'model_interface.AnyModel'
) -> str:
  """Why there is only one view of each picture; '' if there are several."""
  if args.tiles:
    return 'with --tiles, views are not kept'
  if args.method is not None:
    return f'{args.method} has one view of a picture'
  views = model.config.evaluation.test_time_augmentation
  if len(model.members) == 1 and views == 'off':
    return (
      'the model averages no views of a picture'
      ' (evaluation.test_time_augmentation is off in its config.json)'
    )
  return ''


def _model(args: argparse.Namespace) -> 'model_interface.AnyModel':
  """The model, the models or the method that the flags name."""
  from skinseg_jax.inference import classical_model, trained_model

  if args.method is not None:
    return classical_model.load(args.method, config_lib.Config())
  return trained_model.load_all(args.workdir, args.checkpoint)


def _review(args: argparse.Namespace, model):
  """What `calibrate_review` learned for this model; None if it did not.

  Prints why there is none.
  """
  from skinseg_jax.quality import expected_dice
  from skinseg_jax.run import review_file

  if args.method is not None:
    return None
  unnoticed = (
    'low expected Dice and pictures unlike the training images are not noticed'
  )
  if len(model.members) > 1:
    print(f'several models: {unnoticed}; name one --workdir to notice them')
    return None
  (folder,) = args.workdir
  found = review_file.of_model(folder, model.identity())
  if found is None and not (folder / expected_dice.NAME).exists():
    print(
      f'no {expected_dice.NAME}: {unnoticed}; write it with'
      f' {review_file.command(folder, model.step)}'
    )
  return found


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = flags.parser('predict', __doc__)
  path: dict[str, Any] = {'type': paths.user_path, 'required': True}
  add = parser.add_argument
  flags.add_workdir(parser, several=True)
  add(
    '--method',
    metavar='NAME',
    help='classical method in place of a model: '
    + ', '.join(parameters.METHODS),
  )
  add(
    '--input',
    nargs='+',
    metavar='PATH',
    help='image files or folders of images',
    **path,
  )
  add('--output', metavar='DIR', help='folder to write masks to', **path)
  flags.add_checkpoint(parser)
  _add_file_flags(parser)
  _add_mask_flags(parser)
  _add_measure_flags(parser)
  _add_process_flags(parser)
  args = parser.parse_args(argv[1:])
  args.pixel_spacing = _spacing(args)
  _check_method(args)
  return args


def _add_file_flags(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  add(
    '--overlay',
    action='store_true',
    help='also write the images with their masks to overlay/',
  )
  add(
    '--probability',
    action='store_true',
    help='also write probability maps to probability/: 0 to 255 for a'
    ' probability of lesion from 0 to 1',
  )
  add(
    '--uncertainty',
    action='store_true',
    help='also write the entropy of each pixel to uncertainty/, with 16 bits:'
    ' 0 to 65535 for 0 to 1 bit',
  )
  add(
    '--overwrite',
    action='store_true',
    help='write over masks that are there already, and predict all again',
  )


def _check_method(args: argparse.Namespace) -> None:
  if args.method is None:
    return
  catalog.find(args.method)
  if args.workdir is not None or args.checkpoint != 'last':
    raise errors.InputError(
      f'--method {args.method} uses no trained model; leave --workdir and'
      ' --checkpoint out.'
    )


def _add_mask_flags(parser: argparse.ArgumentParser) -> None:
  masks = parser.add_argument_group('masks')
  masks.add_argument(
    '--fill_holes', action='store_true', help='fill the holes of lesions'
  )
  masks.add_argument(
    '--min_area',
    type=_share,
    default=0.0,
    metavar='SHARE',
    help='remove pieces that cover less than this share of the image, 0 to 1',
  )
  masks.add_argument(
    '--largest_component',
    action='store_true',
    help='remove all pieces but the largest',
  )
  masks.add_argument(
    '--tiles',
    type=_pixels,
    metavar='PIXELS',
    help='for images far larger than the network: predict overlapping tiles of'
    ' this height instead of the whole image',
  )


def _add_measure_flags(parser: argparse.ArgumentParser) -> None:
  measures = parser.add_argument_group('measures')
  measures.add_argument(
    '--measures',
    action='store_true',
    help=f'also write measures of each lesion to {table.NAME}, with their'
    ' ranges over the views that the model averages; they are no diagnosis',
  )
  measures.add_argument(
    '--pixel_spacing',
    nargs='+',
    type=flags.millimetres,
    metavar='MM',
    help='distance between pixels in millimetres, or between rows and between'
    ' columns, of images that do not state it as DICOM files can; default:'
    ' not known',
  )


def _add_process_flags(parser: argparse.ArgumentParser) -> None:
  processes = parser.add_argument_group('several processes')
  processes.add_argument(
    '--coordinator',
    default='',
    metavar='HOST:PORT',
    help='address of process 0, or auto; each image is predicted once',
  )
  processes.add_argument('--num_processes', type=int, metavar='N')
  processes.add_argument('--process_id', type=int, metavar='N')


def _share(text: str) -> float:
  try:
    share = float(text)
  except ValueError:
    share = -1.0
  if not 0 <= share < 1:
    raise argparse.ArgumentTypeError(
      f'{text} is no share of an image; give 0 to below 1, such as 0.001'
    )
  return share


def _spacing(args: argparse.Namespace) -> tuple[float, float] | None:
  """Distance between rows and between columns, as the flags say."""
  given = args.pixel_spacing
  if given is None:
    return None
  if not args.measures:
    raise errors.InputError(
      '--pixel_spacing is used by measures only; add --measures, or leave it'
      ' out.'
    )
  if len(given) > 2:
    raise errors.InputError(
      f'--pixel_spacing has {len(given)} numbers; give one, or two: the'
      ' distance between rows, then between columns.'
    )
  return given[0], given[-1]


def _pixels(text: str) -> int:
  if not text.isdecimal() or not 16 <= int(text) <= 100_000:
    raise argparse.ArgumentTypeError(
      f'{text} is no height in pixels; give 16 or more, such as 1024'
    )
  return int(text)


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
