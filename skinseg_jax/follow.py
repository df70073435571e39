"""Follows lesions over time: what changed between pictures of one lesion.

python -m skinseg_jax.follow --input FOLDER --output DIR [--workdir DIR ...]
python -m skinseg_jax.follow --input TABLE.csv --output DIR [--workdir DIR ...]

FOLDER holds one folder for each lesion. The date of a picture is taken from the
name of its file, such as 2024-05-01.jpg. TABLE.csv has the columns lesion, date
and file.

Each picture is compared with one of its lesion, the reference. This is the
first picture that shows a whole lesion and is not dark, blurred or of one
colour; if there is none, it is the first one in which a lesion is found.
Pictures are registered to it by points of the skin.
DIR/follow.csv has one row for each picture, DIR/LESION.html is a page for each
lesion. A change counts if it is larger than 95 % of the differences between
repeated pictures of one lesion. Changes are in the order of time, also where a
picture comes before the reference.

Files that cannot be read are listed and skipped; the exit code is then 3.
Research software, not a medical device.
"""

import argparse
import csv
import pathlib
import sys
from collections.abc import Sequence

from skinseg_jax import config as config_lib
from skinseg_jax.following import registration, series
from skinseg_jax.runtime import errors, flags, paths
from skinseg_jax.weights import ensemble_folder, shared_model

_TABLE = 'follow.csv'


def main(argv: list[str]) -> None:
  """Parses the command line and follows the lesions."""
  args = _parse(argv)
  registration.check_installed()
  lesions = series.read(args.input, args.output)
  _check_output(args, lesions)
  folders = args.workdir or [shared_model.chosen(None)]
  args.workdir = ensemble_folder.members(folders)
  for folder in args.workdir:
    config_lib.load(folder / 'config.json')  # Is it a run?
    shared_model.keep_out(folder, args.output)
  skipped = _follow(args, lesions)
  if skipped.count:
    print(f'skipped {skipped.count} files:\n{skipped}', file=sys.stderr)
    sys.exit(errors.SKIPPED_FILES)


def _follow(
  args: argparse.Namespace, lesions: list[series.Series]
) -> errors.Few:
  """Writes the table and the pages; returns the files that were skipped."""
  # Imported after the flags are checked, because the import takes seconds.
  import tqdm

  from skinseg_jax.following import course, table
  from skinseg_jax.reporting import follow_page

  model, calibration = _model(args)
  other_model = _other_model(args.workdir)
  skipped, changed, alone, noted, poor = (errors.Few() for _ in range(5))
  try:
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / _TABLE
    # Names of files need not be UTF-8.
    with path.open(
      'w', encoding='utf-8', errors='surrogateescape', newline=''
    ) as file:
      writer = csv.DictWriter(file, table.COLUMNS, lineterminator='\n')
      writer.writeheader()
      for one in tqdm.tqdm(lesions, unit='lesion', disable=None):
        visits = course.follow(one, model, args.pixel_spacing, calibration)
        page = args.output / f'{one.lesion}.html'
        follow_page.write(page, one, visits, other_model)
        writer.writerows(table.rows(one, visits))
        file.flush()
        for visit in visits:
          if visit.status == course.REFERENCE and visit.poor:
            poor.add(f'{visit.entry.path}: {visit.poor}')
          if visit.status == course.SKIPPED:
            skipped.add(visit.problem)
          if visit.status == course.ALONE:
            alone.add(f'{visit.entry.path}: {visit.problem}')
          elif visit.problem and visit.status != course.SKIPPED:
            noted.add(f'{visit.entry.path}: {visit.problem}')
          if visit.beyond:
            labels = ', '.join(what.label for what in visit.beyond)
            when = ' (before the reference)' if visit.earlier else ''
            changed.add(f'{visit.entry.path}{when}: {labels}')
  except OSError as error:
    raise errors.of_files(
      error,
      args.output,
      'choose another --output, or free some space and run the same command'
      ' again with --overwrite.',
    ) from error
  _say('are the reference, as no picture of their lesion is good enough', poor)
  _say('are not registered', alone)
  _say('have a problem', noted)
  _say(
    'differ from the reference of their lesion more than repeated pictures do',
    changed,
  )
  print(f'wrote {path} and {len(lesions)} pages (step {model.step})')
  return skipped


def _model(args: argparse.Namespace):
  """The model, and what is known of the Dice of its masks, or None."""
  from skinseg_jax.inference import trained_model
  from skinseg_jax.run import review_file
  from skinseg_jax.runtime import compilation, devices

  devices.use('auto')
  compilation.keep_programs()
  model = trained_model.load_all(args.workdir, args.checkpoint)
  calibration = None
  if isinstance(model, trained_model.TrainedModel):
    calibration = review_file.of_model(args.workdir[0], model.identity())
  return model, calibration


def _say(what: str, pictures: errors.Few) -> None:
  if pictures.count:
    print(f'{pictures.count} pictures {what}:\n{pictures}')


def _other_model(folders: Sequence[pathlib.Path]) -> str:
  """Names of the models; '' for the one that the limits belong to."""
  places = [folder.resolve() for folder in folders]
  if places == [shared_model.SHIPPED.resolve()]:
    return ''
  return ', '.join(place.name for place in places)


def _check_output(
  args: argparse.Namespace, lesions: list[series.Series]
) -> None:
  names = [_TABLE, *(f'{one.lesion}.html' for one in lesions)]
  there = [str(p) for name in names if (p := args.output / name).exists()]
  if there and not args.overwrite:
    raise errors.InputError(
      'these files already exist; choose another --output, or give'
      ' --overwrite:\n' + errors.listing(there)
    )


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = flags.parser('follow', __doc__)
  add = parser.add_argument
  flags.add_workdir(parser, several=True)
  add(
    '--input',
    metavar='PATH',
    type=paths.user_path,
    required=True,
    help='folder with one folder of pictures for each lesion, or a csv file'
    ' with the columns lesion, date and file',
  )
  add(
    '--output',
    metavar='DIR',
    type=paths.user_path,
    required=True,
    help='folder to write the table and the pages to',
  )
  flags.add_checkpoint(parser)
  add(
    '--pixel_spacing',
    type=flags.millimetres,
    metavar='MM',
    help='millimetres between pixels, for files that do not state it (DICOM'
    ' files may); a picture whose registered scale disagrees is reported;'
    ' without any spacing, lengths are in pixels of the reference',
  )
  add(
    '--overwrite',
    action='store_true',
    help='write over the table and the pages that are there already',
  )
  return parser.parse_args(argv[1:])


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
