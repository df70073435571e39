"""Writes the card of a model that is shared: what it is, scores and limits.

https://huggingface.co/docs/hub/model-cards describes the head of the file.
"""

import pathlib
from typing import Any

import jax
import jinja2
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.data import splits
from skinseg_jax.evaluation import result_files, shared_models
from skinseg_jax.inference import trained_model
from skinseg_jax.reporting import provenance
from skinseg_jax.runtime import errors
from skinseg_jax.weights import shared_model

_EVALUATION = 'validation'
_LICENCES = {'ham10000': 'cc-by-nc-4.0', 'synthetic': 'apache-2.0'}
_GROUPS = ('dx', 'sex', 'source')


def write(
  path: pathlib.Path,
  workdir: pathlib.Path,
  model: trained_model.TrainedModel,
  notes: str = '',
) -> None:
  """Writes the card.

  Args:
    path: Of the card.
    workdir: Folder of the run, or of the scores of the shared model. The card
      has its validation scores if they belong to the same checkpoint.
    model: The model that is shared.
    notes: Sections to add, as Markdown.
  """
  config = model.config
  parameters = jax.tree.leaves(nnx.filter_state(model.state, nnx.Param))
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('skinseg_jax.reporting'),
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
    autoescape=False,  # Markdown.
  )
  text = environment.get_template('model_card.md').render(
    name=' '.join(['skinseg_jax', *_short(config.model)]),
    network=provenance.network(config),
    notes=notes,
    training_images=_training_images(workdir),
    data_split=config.data.split,
    views=provenance.VIEWS[config.evaluation.test_time_augmentation],
    licence=licence(config),
    parameters=sum(leaf.size for leaf in parameters),
    height=config.data.image_size[0],
    width=config.data.image_size[1],
    threshold=config.evaluation.threshold,
    data_note=provenance.data_note(config.data.source),
    rounded=shared_models.holds_scores(workdir),
    **scores(workdir, model.step),
  )
  path.write_text(text, encoding='utf-8')


def _training_images(workdir: pathlib.Path) -> int:
  """Their number; 0 if the folder does not say."""
  path = workdir / shared_model.SPLIT
  return len(splits.read_split(path).train) if path.is_file() else 0


def _short(model: config_lib.ModelConfig) -> list[str]:
  return [model.architecture, model.encoder or f'width {model.width}']


def licence(config: config_lib.Config) -> str:
  """Licence of the training data, as the hub names it; or 'unknown'."""
  return _LICENCES.get(config.data.source, 'unknown')


def scores(workdir: pathlib.Path, step: int) -> dict[str, Any]:
  """Scores of the validation images; empty without those of the checkpoint."""
  try:
    evaluation = result_files.read(workdir, _EVALUATION)
  except errors.InputError:
    return {'scores': []}
  summary = evaluation.summary
  if summary['checkpoint_step'] != step:
    return {'scores': []}
  pooled, each = summary['pooled_intervals'], summary['per_image']
  isic = summary['isic']['threshold_jaccard']
  rows = [
    ('dice', 'Dice, pooled over all pixels', pooled['dice'], 'value'),
    ('dice', 'Dice per image', each['dice'], 'mean'),
    ('jaccard', 'thresholded Jaccard index', isic, 'value'),
    ('recall', 'recall, pooled over all pixels', pooled['recall'], 'value'),
  ]
  native = summary['native_size']
  own_size = native and {
    'Dice, pooled over all pixels': native['pooled']['dice'],
    'Dice per image': native['per_image']['dice']['mean'],
    'thresholded Jaccard index': native['per_image']['threshold_jaccard'][
      'mean'
    ],
    'recall, pooled over all pixels': native['pooled']['recall'],
  }
  return {
    'scores': [
      {'type': kind, 'name': name, 'value': ends[middle],
       'low': ends['low'], 'high': ends['high']}
      for kind, name, ends, middle in rows
    ],
    'own_size': own_size or {},
    'groups': [
      row for name in _GROUPS for row in evaluation.subgroups.get(name, [])
    ],
    'images': summary['num_images'],
    'clusters': summary['clusters'],
    'clustered_by': summary.get('clustered_by', 'lesion'),
    'data_name': summary['data']['name'],
    'split': _EVALUATION,
  }  # fmt: skip
