"""Splits, commands and tables of the studies that train many runs."""

import pytest
import sources
import study_runs

from skinseg_jax import config as config_lib
from skinseg_jax.data import splits


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


@pytest.mark.parametrize(
  'fields',
  [
    {f'augmentation.{name}': value for name, value in changes.items()}
    for changes in sources.RECIPES.values()
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
