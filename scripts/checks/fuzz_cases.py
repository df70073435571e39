"""The kinds of files that fuzz.py damages, and the code that reads them."""

import csv
import io
import json
import pathlib
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from PIL import Image

from skinseg_jax import config as config_lib
from skinseg_jax.data import input_pipeline, preprocessing, splits
from skinseg_jax.data.sources import folder, ham10000_checks, ham10000_files
from skinseg_jax.evaluation import expert_review, result_files
from skinseg_jax.inference import trained_model
from skinseg_jax.run import checkpointing, metric_writer, run_folder
from skinseg_jax.runtime import errors
from skinseg_jax.training import train_state
from skinseg_jax.weights import tensor_files

_HUGE = (2**31 - 1, 2**32 - 1, 10_000, 65_535, 0)
_ROWS = [
  ['image_id', 'lesion_id', 'dx', 'dx_type', 'age', 'sex', 'localization'],
  *([f'ISIC_{n}', f'HAM_{n // 2}', 'nv', 'histo', '40.0', 'male', 'back']
    for n in range(4)),
]  # fmt: skip


def damage(data: bytes, rng: np.random.Generator) -> bytes:
  """Changes a file in one to three places."""
  for _ in range(rng.integers(1, 4)):
    data = _DAMAGES[rng.integers(len(_DAMAGES))](bytearray(data or b'\0'), rng)
  return bytes(data)


def _flip_bits(data, rng):
  for place in rng.integers(len(data), size=rng.integers(1, 9)):
    data[place] ^= 1 << rng.integers(8)
  return data


def _cut(data, rng):
  return data[: rng.integers(len(data))]


def _move(data, rng):
  """Copies a piece to another place: overwrites what is there, or inserts."""
  start, place = rng.integers(len(data), size=2)
  piece = data[start : start + rng.integers(1, 65)]
  data[place : place + len(piece) * rng.integers(2)] = piece
  return data


def _enlarge(data, rng):
  """Writes an extreme number where a header may store a size."""
  place = rng.integers(min(len(data), 64))
  order = 'big' if rng.integers(2) else 'little'
  number = int(_HUGE[rng.integers(len(_HUGE))])
  data[place : place + 4] = number.to_bytes(4, order)
  return data


def _enlarge_text(data, rng):
  """Replaces a number that is written in digits by an extreme value."""
  numbers = list(re.finditer(rb'\d+', bytes(data)))
  if not numbers:
    return _enlarge(data, rng)
  number = numbers[rng.integers(len(numbers))]
  data[number.start() : number.end()] = rng.choice(
    [b'1' * 5000, b'-1', b'1e999', b'99999999999', b'null', b'"=1+1"']
  )
  return data


def _nest(data, rng):
  place = rng.integers(len(data) + 1)
  text = (b'[' * 100_000, b'"' + b'x' * 200_000, b'\0\xff\n,"')
  data[place:place] = text[rng.integers(len(text))]
  return data


_DAMAGES = (_flip_bits, _flip_bits, _cut, _move, _enlarge, _enlarge_text, _nest)


def _encode(image: Image.Image, file_format: str, **options) -> bytes:
  buffer = io.BytesIO()
  image.save(buffer, file_format, **options)
  return buffer.getvalue()


class Images:
  """Images of all formats and modes, decoded as images."""

  def __init__(self, home: pathlib.Path):
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (40, 60, 3)).astype(np.uint8))
    wide = Image.fromarray(rng.integers(0, 2**16, (40, 60)).astype(np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    self._files = [
      _encode(rgb, 'JPEG', exif=exif),
      _encode(rgb, 'JPEG', progressive=True),
      *(_encode(rgb.convert(m), 'PNG') for m in ('RGB', 'RGBA', 'L', 'P')),
      _encode(rgb, 'PNG', exif=exif),
      _encode(wide, 'PNG'),
      _encode(rgb, 'BMP'),
      _encode(rgb, 'TIFF'),
      _encode(rgb, 'TIFF', compression='tiff_lzw'),
      _encode(wide, 'TIFF'),
      _encode(rgb, 'WEBP', lossless=True),
    ]

  def __call__(self, rng: np.random.Generator) -> None:
    """Reads a damaged one."""
    data = damage(self._files[rng.integers(len(self._files))], rng)
    pixels = preprocessing.decode_image(data, 'x')
    assert pixels.dtype == np.uint8
    assert pixels.shape[2:] == (3,)
    assert preprocessing.image_size(data, 'x') == pixels.shape[:2]


class Masks:
  """Masks of all kinds, decoded as masks, strictly or with a threshold."""

  def __init__(self, home: pathlib.Path):
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:40] = 1
    grey = Image.fromarray(mask * 255)
    palette = Image.fromarray(1 - mask, mode='P')
    palette.putpalette([255, 255, 255, 0, 0, 0])
    self._files = [
      _encode(grey, 'PNG'),
      _encode(palette, 'PNG'),
      _encode(grey.convert('1'), 'PNG'),
      _encode(grey.convert('LA'), 'PNG'),
      _encode(grey, 'BMP'),
      _encode(grey.convert('1'), 'TIFF', compression='group4'),
      _encode(grey, 'JPEG'),
    ]

  def __call__(self, rng: np.random.Generator) -> None:
    """Reads a damaged one."""
    data = damage(self._files[rng.integers(len(self._files))], rng)
    mask = preprocessing.decode_mask(
      data, 'x', threshold=int(rng.choice([0, 127]))
    )
    assert mask.dtype == np.uint8
    assert mask.max() <= 1


def _write_csv(path: pathlib.Path, rows: list[list]) -> None:
  with path.open('w', encoding='utf-8', newline='') as file:
    csv.writer(file).writerows(rows)


def _damage_file(path: pathlib.Path, rng: np.random.Generator) -> None:
  path.write_bytes(damage(path.read_bytes(), rng))


class _InCopies:
  """Reads a damaged copy of a folder of good files each time."""

  def __init__(self, home: pathlib.Path):
    self._good, self._copy = home / 'good', home / 'copy'
    self._good.mkdir()
    self._make(self._good)

  def __call__(self, rng: np.random.Generator) -> None:
    """Reads a damaged one."""
    shutil.rmtree(self._copy, ignore_errors=True)
    shutil.copytree(self._good, self._copy)
    self._read(self._copy, rng)


class Zips(_InCopies):
  """The raw files of HAM10000: zips and csv, listed, read and decoded."""

  def _make(self, home):
    image = Image.new('RGB', (60, 40), (200, 150, 120))
    mask = Image.new('L', (60, 40), 255)
    files = {
      'HAM10000_images_part_1': ('{}.jpg', _encode(image, 'JPEG')),
      'HAM10000_segmentations_lesion_tschandl': (
        '{}_segmentation.png', _encode(mask, 'PNG')
      ),
    }  # fmt: skip
    for name, (pattern, data) in files.items():
      with zipfile.ZipFile(
        home / f'{name}.zip', 'w', zipfile.ZIP_DEFLATED
      ) as file:
        for row in _ROWS[1:]:
          file.writestr(pattern.format(row[0]), data)
    _write_csv(home / ham10000_files.METADATA_NAME, _ROWS)

  def _read(self, home, rng):
    _damage_file(rng.choice(sorted(home.iterdir())), rng)
    raw = ham10000_files.list_files(ham10000_files.find(home))
    ham10000_checks.verify(raw, mask_threshold=0)


class Csvs(_InCopies):
  """A folder's metadata, split files and reviews."""

  def _make(self, home):
    for name in ('images', 'masks'):
      (home / name).mkdir()
      for number, row in enumerate(_ROWS[1:]):
        picture = Image.new('L', (16, 16), number if name == 'images' else 255)
        picture.save(home / name / f'{row[0]}.png')
    _write_csv(home / 'metadata.csv', _ROWS)
    splits.write_split(
      splits.Split([r[0] for r in _ROWS[1:3]], [r[0] for r in _ROWS[3:]]),
      home / 'split.csv',
    )
    _write_csv(
      home / 'review.csv',
      [expert_review.COLUMNS, *([r[0], 'accept', "'=good"] for r in _ROWS[1:])],
    )

  def _read(self, home, rng):
    path = rng.choice(sorted(home.glob('*.csv')))
    _damage_file(path, rng)
    match path.name:
      case 'metadata.csv':
        folder.FolderSource(home / 'images', home / 'masks', path, 0)
      case 'split.csv':
        splits.read_split(path)
      case 'review.csv':
        expert_review.read_review(path)


class _Source:
  name, fingerprint = 'another', 'of no other data'


class Runs(_InCopies):
  """Config and other small files of a run, and its evaluation."""

  def _make(self, home):
    _make_run(home)
    run_folder.write_json(
      home / 'environment.json', {'data_fingerprint': _Source.fingerprint}
    )
    lines = [{'step': n, 'train/loss': 0.5} for n in range(3)]
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    (home / 'metrics.jsonl').write_text(text, encoding='utf-8')
    directory = run_folder.evaluation_dir(home, 'validation')
    directory.mkdir(parents=True)
    names = [row[0] for row in _ROWS[1:]]
    _write_csv(
      directory / 'per_image.csv',
      [['image_id', 'iou'], *([name, '0.5'] for name in names)],
    )
    with (directory / 'predictions.npz').open('wb') as file:
      np.savez_compressed(
        file, masks=np.zeros((4, 32), np.uint8), image_ids=np.array(names)
      )
    for name in ('summary', 'subgroups', 'failures'):
      run_folder.write_json(
        directory / f'{name}.json', {'image_size': [16, 16]}
      )

  def _read(self, home, rng):
    files = [p for p in sorted(home.glob('*.json*')) if p.is_file()]
    files += sorted(run_folder.evaluation_dir(home, 'validation').iterdir())
    path = rng.choice([home / 'config.json', *files])
    _damage_file(path, rng)
    match path.name:
      case 'config.json':
        trained_model.load(home, 'last')
      case 'environment.json':
        run_folder.check_data(home, _Source())
      case 'metrics.jsonl':
        metric_writer.read(home)
      case _:
        result_files.read(home, 'validation')


def _make_run(home: pathlib.Path) -> Any:
  """Makes a run folder with config and two checkpoints; returns their state."""
  config = config_lib.Config()
  config.model.width = 1
  static = train_state.create(
    config, input_pipeline.data_sharding(), num_updates=1
  )
  run_folder.write_json(home / 'config.json', config_lib.to_dict(config))
  checkpoints = checkpointing.Checkpoints(run_folder.checkpoints_dir(home))
  for step, dice in ((1, 0.75), (2, 0.5)):
    checkpoints.save(
      step,
      checkpointing.Checkpoint(*static.state, {'at': step}, {'steps': step}),
      {checkpointing.BEST_METRIC: dice},
    )
  checkpoints.close()
  return static.state


class Checkpoints(_InCopies):
  """Checkpoints of a run, and weights in .safetensors and .pt files."""

  def _make(self, home):
    self._like = _make_run(home)
    self._model = self._like[0]
    weights = {'a.weight': np.ones((4, 3, 3, 3), np.float32)}
    tensor_files.write(home / 'x.safetensors', weights)
    try:
      tensor_files.write(home / 'x.pt', weights)
    except errors.InputError:
      print('without PyTorch: no .pt files', file=sys.stderr)

  def _read(self, home, rng):
    weights = sorted(home.glob('x.*'))
    if rng.integers(2):
      path = rng.choice(weights)
      _damage_file(path, rng)
      tensor_files.read(path)
      return
    inside = run_folder.checkpoints_dir(home).rglob('*')
    _damage_file(rng.choice(sorted(p for p in inside if p.is_file())), rng)
    match rng.integers(3):
      case 0:
        loaded, step, wanted = *self._resume(home), 2
      case 1:
        model = trained_model.load(home, 'last')
        loaded, step, wanted = model.state, model.step, 2
      case 2:
        model = trained_model.load(home, 'best')
        loaded, step, wanted = model.state, model.step, 1
    assert step == wanted
    pairs = zip(*map(jax.tree.leaves, (loaded, self._model)), strict=True)
    for found, saved in pairs:
      np.testing.assert_array_equal(found, saved)

  def _resume(self, home):
    checkpoints = checkpointing.Checkpoints(run_folder.checkpoints_dir(home))
    try:
      step, found = checkpoints.restore_latest(
        checkpointing.Checkpoint(*self._like, None, None)
      )
    finally:
      checkpoints.close()
    assert found.data == {'at': 2}
    return found.model, step


# Each kind with its share of the cases.
KINDS: dict[str, tuple[Callable, int]] = {
  'image': (Images, 30),
  'mask': (Masks, 20),
  'zip': (Zips, 15),
  'csv': (Csvs, 15),
  'run': (Runs, 10),
  'checkpoint': (Checkpoints, 10),
}
