"""Splits, commands and tables of the studies that train many runs."""

import itertools
import json

import networks_learn
import pytest
import sources
import study_runs

from skinseg_jax import config as config_lib
from skinseg_jax.data import splits
from skinseg_jax.models import build
from skinseg_jax.runtime import errors


@pytest.fixture
def metadata(monkeypatch):
  """60 lesions of two images; the paper validates on images 100 to 119."""
  rows = [
    {
      'image_id': f'{i:03}',
      'lesion_id': f'l{i // 2}',
      'dx': 'nv',
      'dataset': sources.SOURCES[(i // 2) % 4],
    }
    for i in range(120)
  ]
  # A lesion with pictures of two sources.
  rows[0]['dataset'] = sources.SOURCES[1]
  make = splits.make_split

  def paper(config, metadata):
    if config.split != 'paper':
      return make(config, metadata)
    ids = [row['image_id'] for row in metadata]
    return splits.Split(train=ids[:100], validation=ids[100:])

  monkeypatch.setattr(splits, 'make_split', paper)
  return rows


def _lesions(ids, metadata):
  return {row['lesion_id'] for row in metadata if row['image_id'] in ids}


def test_networks_learn_from_training_images_alone(metadata):
  split = networks_learn.make_split(metadata, 40)
  assert len(split.train) == 40
  assert max(split.train + split.validation) < '100'
  assert not _lesions(split.train, metadata) & _lesions(
    split.validation, metadata
  )
  assert networks_learn.make_split(metadata, 40) == split
  with pytest.raises(errors.InputError, match='give a smaller one'):
    networks_learn.make_split(metadata, 90)


@pytest.mark.parametrize('source', sources.SOURCES)
def test_a_source_is_scored_and_never_trained_on(metadata, source):
  split = sources.make_split(metadata, source, 20)
  of = {row['image_id']: row['dataset'] for row in metadata}
  assert {of[name] for name in split.validation} == {source}
  assert source not in {of[name] for name in split.train}
  assert len(split.validation) <= 20
  assert max(split.train + split.validation) < '100'
  assert not _lesions(split.train, metadata) & _lesions(
    split.validation, metadata
  )


def test_mixed_leaves_out_lesions_of_several_sources(metadata):
  split = sources.make_split(metadata, sources.MIXED, 1000)
  of = {row['image_id']: row['dataset'] for row in metadata}
  assert len({of[name] for name in split.validation}) > 1
  assert 0.1 < len(split.validation) / len(split.train) < 0.5
  assert not _lesions(split.train, metadata) & _lesions(
    split.validation, metadata
  )


def test_every_network_is_in_the_study():
  names = {
    fields['model.architecture'] for fields in networks_learn.NETWORKS.values()
  }
  assert names == set(build.ARCHITECTURES)


@pytest.mark.parametrize(
  'fields',
  [
    *networks_learn.NETWORKS.values(),
    *(
      {f'augmentation.{name}': value for name, value in changes.items()}
      for changes in sources.RECIPES.values()
    ),
  ],
)
def test_fields_exist(fields):
  assert set(fields) <= set(config_lib.field_names())


def test_a_finished_run_is_not_trained_again(tmp_path, monkeypatch):
  commands = []
  monkeypatch.setattr(
    study_runs.subprocess,
    'run',
    lambda command, check: commands.append(command),
  )
  study_runs.train(tmp_path / 'a', 'x', {'train.epochs': 2})
  (command,) = commands
  assert command[-4:] == [
    'x', '--workdir', str(tmp_path / 'a'), '--config.train.epochs=2'
  ]  # fmt: skip
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a' / 'report.html').write_text('')
  study_runs.train(tmp_path / 'a', 'x', {})
  assert len(commands) == 1


def test_a_row_is_what_the_run_logged(tiny_run, tmp_path):
  workdir, summary = tiny_run
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  copy = tmp_path / 'run'
  (copy / 'evaluation' / 'validation').mkdir(parents=True)
  # Of two epochs only the last.
  epochs = [i for i, line in enumerate(lines) if 'epoch/number' in line]
  del lines[epochs[0]]
  (copy / 'metrics.jsonl').write_text('\n'.join(lines))
  (copy / 'evaluation' / 'validation' / 'summary.json').write_text(
    json.dumps(summary)
  )
  (copy / 'parameters.txt').write_text((workdir / 'parameters.txt').read_text())
  row = networks_learn.row('x', copy)
  assert row['network'] == 'x'
  # The paper's U-Net of width 2, counted by hand.
  assert row['parameters'] == f'{_unet_parameters(2):,}'
  assert row['pooled Dice'] == f'{summary["pooled"]["dice"]:.4f}'
  assert list(row) == list(networks_learn._COLUMNS)


def _unet_parameters(width: int) -> int:
  conv = lambda i, o: 9 * i * o + 2 * o  # With a batch norm.
  double = lambda i, o: conv(i, o) + conv(o, o)
  widths = [width * 2**level for level in range(5)]
  down = double(3, width) + sum(
    double(a, b) for a, b in itertools.pairwise(widths)
  )
  up = sum(
    4 * b * a + a + double(2 * a, a) for a, b in itertools.pairwise(widths)
  )
  return down + up + width + 1
