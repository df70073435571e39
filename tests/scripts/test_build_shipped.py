"""The model of the package is built from a run, with its card and scores."""

import importlib
import shutil

import build_shipped
import pytest

from skinseg_jax.evaluation import shared_models
from skinseg_jax.inference import trained_model
from skinseg_jax.quality import expected_dice
from skinseg_jax.run import review_file
from skinseg_jax.weights import shared_model


@pytest.fixture
def build(tiny_run, tiny_config, tmp_path, monkeypatch):
  """Builds a model whose training is that of `tiny_run`."""
  workdir, _ = tiny_run
  runs = tmp_path / 'runs'
  monkeypatch.setattr(shared_model, 'SHIPPED', tmp_path / 'shipped')

  def call(command, *flags):
    if command == 'main':
      assert '--config=ham10000_mobile' in flags
      (home,) = [f[10:] for f in flags if f.startswith('--workdir=')]
      shutil.copytree(workdir, home, dirs_exist_ok=True)
    else:
      if command == 'evaluate':  # The card reads the scores alone.
        flags += ('--skip_report',)
      module = importlib.import_module(f'skinseg_jax.{command}')
      module.main([command, *flags])

  monkeypatch.setattr(build_shipped, '_call', call)
  # The run's own validation images; there are few of them.
  monkeypatch.setattr(
    build_shipped, '_write_split', lambda path, data_dir: None
  )
  monkeypatch.setattr(expected_dice, 'LEAST', 5)
  # Ids of generated images are not kept, as those of HAM10000 are.
  monkeypatch.setattr(
    shared_models,
    'keep_split',
    lambda home, _, output: shutil.copy(home / 'split.csv', output),
  )
  data = tiny_config.data.data_dir
  return lambda: build_shipped.main(
    ['build_shipped', f'--runs_dir={runs}', f'--data_dir={data}']
  )


@pytest.mark.slow
def test_the_card_repeats_the_page():
  card = (shared_model.SHIPPED / 'README.md').read_text(encoding='utf-8')
  assert build_shipped._notes() in card


def test_it_replaces_the_model_of_the_package(
  build, tiny_run, tmp_path, capsys
):
  shipped = tmp_path / 'shipped'
  build()
  assert 'its weights are new' in capsys.readouterr().out
  run, model = (trained_model.load(w, 'last') for w in (tiny_run[0], shipped))
  assert model.step == run.step
  card = (shipped / 'README.md').read_text()
  assert '| Dice, pooled over all pixels |' in card
  assert '\n## Where it fails\n' in card
  assert '](../' not in card  # The card has no neighbours.
  assert review_file.of_model(shipped, model.identity())
  (shipped / 'left_over').touch()
  build()
  assert 'its weights are unchanged' in capsys.readouterr().out
  assert sorted(path.name for path in shipped.iterdir()) == [
    'README.md', 'config.json', 'failures.png', 'model.json',
    'model.safetensors', 'review.json', 'split.csv',
  ]  # fmt: skip
  assert not list(tmp_path.glob('shipped.*'))
