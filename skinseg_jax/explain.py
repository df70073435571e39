"""Shows what a mask rests on.

python -m skinseg_jax.explain --input PATH ... --output DIR [--workdir DIR]

Writes a sheet for each picture: DIR/x.png for x.jpg, with the probability, its
uncertainty, Seg-Grad-CAM at several levels of the network, occlusion
sensitivity, and attention maps where the network has gates. DIR/explain.html
shows the sheets, says what each map can and cannot show, and checks the maps
against a network with random weights. It opens without a network.

Without --workdir, the model that comes with skinseg_jax is used. The maps are
about the network, not about the lesion: they are no diagnosis. Files that
cannot be read are listed at the end; the exit code is then 3.
"""

import argparse
import pathlib
import sys
from typing import Any

from skinseg_jax import config as config_lib
from skinseg_jax.explanation import occlusion
from skinseg_jax.inference import inputs, outputs, table
from skinseg_jax.runtime import errors, flags, paths
from skinseg_jax.weights import ensemble_folder, shared_model

_PAGE = 'explain.html'


def main(argv: list[str]) -> None:
  """Parses the command line and writes sheets and page.

  Raises:
    InputError: If a flag, an input or the model cannot be used.
  """
  args = _parse(argv)
  files = _scan(args)
  workdir = shared_model.chosen(args.workdir)
  if len(members := ensemble_folder.members([workdir])) > 1:
    raise errors.InputError(
      f'--workdir {workdir} stands for several models, and one network at a'
      ' time is explained; give one of:\n'
      + errors.listing([str(member) for member in members])
    )
  config = config_lib.load(members[0] / 'config.json')  # Is it a run?
  shared_model.keep_out(members[0], args.output)
  patch = occlusion.patch_size(args.patch, config.data.image_size)
  # Imported after the flags are checked, because the import takes seconds.
  from skinseg_jax.explanation import explainer
  from skinseg_jax.inference import trained_model
  from skinseg_jax.runtime import compilation, devices

  devices.use('auto')
  compilation.keep_programs()
  model = trained_model.load(members[0], args.checkpoint)
  explain = explainer.Explainer(
    model, args.levels, patch=patch, all_pixels=args.pixels == 'all'
  )
  try:
    skipped = _write(args, files, explain, model, workdir)
  except OSError as error:
    raise errors.InputError(
      f'cannot write to {args.output}: {error.strerror}; choose another'
      ' --output.'
    ) from error
  print(
    f'wrote {files.count - skipped.count} sheets and {args.output / _PAGE}'
    f' (checkpoint of step {model.step})'
  )
  if skipped.count:
    print(
      f'skipped {skipped.count} of {files.count} files:\n{skipped}',
      file=sys.stderr,
    )
    sys.exit(errors.SKIPPED_FILES)


def _scan(args: argparse.Namespace) -> inputs.Inputs:
  """The pictures, if their sheets can be written without loss."""
  if (args.output / table.SETTINGS).exists():
    raise errors.InputError(
      f'{args.output} holds masks of predict; choose another --output.'
    )
  page = args.output / _PAGE
  if page.exists() and not args.overwrite:
    raise errors.InputError(
      f'{page} already exists; choose another --output, or give --overwrite.'
    )
  # Sheets have the names that masks have, so the same rules hold for them.
  places = outputs.Outputs(args.output, None, None)
  done = table.Done(places, overwrite=True)
  return inputs.scan(args.input, places, done, overwrite=args.overwrite)


def _write(
  args: argparse.Namespace,
  files: inputs.Inputs,
  explain: Any,
  model: Any,
  workdir: pathlib.Path,
) -> errors.Few:
  """Writes all sheets and the page; returns the files that were skipped."""
  import tqdm

  from skinseg_jax.data import preprocessing
  from skinseg_jax.reporting import explain_page

  page = explain_page.Page(args.output)
  skipped = errors.Few()
  for file in tqdm.tqdm(files, total=files.count, unit='image', disable=None):
    try:
      data = file.path.read_bytes()
      image = preprocessing.decode_image(data, str(file.path))
    except errors.InputError as error:
      skipped.add(str(error))
      continue
    except OSError as error:
      skipped.add(f'{file.path}: {error.strerror}')
      continue
    page.add(file.name, explain.explain(image))
  page.write(_PAGE, explain, model, workdir.resolve().name, skipped.count)
  for note in files.notes:
    print(note)
  return skipped


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = flags.parser('explain', __doc__)
  add = parser.add_argument
  flags.add_workdir(parser)
  add(
    '--input',
    nargs='+',
    metavar='PATH',
    type=paths.user_path,
    required=True,
    help='image files or folders of images',
  )
  add(
    '--output',
    metavar='DIR',
    type=paths.user_path,
    required=True,
    help='folder to write sheets and page to',
  )
  flags.add_checkpoint(parser)
  add(
    '--overwrite',
    action='store_true',
    help='write over sheets that are there already',
  )
  _add_map_flags(parser)
  return parser.parse_args(argv[1:])


def _add_map_flags(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  add(
    '--levels',
    nargs='+',
    metavar='NAME',
    help='levels of the network for Grad-CAM; default: the last one of each'
    ' size. A name that does not exist lists all',
  )
  add(
    '--pixels',
    choices=['lesion', 'all'],
    default='lesion',
    help='pixels whose logits Grad-CAM and occlusion explain: those of the'
    ' predicted lesion, or all; default: lesion',
  )
  add(
    '--patch',
    type=int,
    metavar='PIXELS',
    help='height and width of the patches that occlusion hides, in pixels of'
    " the network's input; default: an eighth of it",
  )


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
