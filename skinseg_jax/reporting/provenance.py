"""Describes run, config, data and model of an evaluation for the report."""

import pathlib
import shlex

from skinseg_jax import config as config_lib
from skinseg_jax.evaluation import result_files
from skinseg_jax.reporting import pages
from skinseg_jax.run import run_folder

_HAM10000 = (
  'HAM10000 (P. Tschandl, C. Rosendahl, H. Kittler, Scientific Data 5, 180161,'
  ' 2018; masks: Tschandl et al., Nature Medicine 26, 2020): 10,015'
  ' dermoscopic images of 7,470 lesions from Vienna and Queensland, licence'
  ' CC BY-NC 4.0, not for commercial use.'
)
_FEW_DARK_SKINS = (
  'HAM10000 holds few dark skins, so scores on it say little about them'
  ' (T. Kalb et al., arXiv:2308.09640).'
)
_SYNTHETIC = (
  'Synthetic images of generated lesions with exact masks. They are for trying'
  ' out the software; scores on them say nothing about real skin.'
)


def identity(
  workdir: pathlib.Path, evaluation: result_files.Evaluation
) -> dict[str, str]:
  """Describes data, checkpoint, command, device and versions, by term."""
  environment = run_folder.read_json(
    workdir / 'environment.json',
    *('python', 'packages', 'device', 'platform', 'num_devices'),
    *('commit', 'data_source', 'data_fingerprint'),
  )
  command = environment.get('command')  # A shared model has none.
  summary = evaluation.summary
  data = summary['data']
  best = summary.get('best_checkpoint')
  text = {
    'Trained on data': f'{environment["data_source"]}, fingerprint'
    f' {environment["data_fingerprint"]}',
    'Scored on data': f'{data["name"]}, fingerprint {data["fingerprint"]}',
    'Split': data['split'],
    'SHA-256 of the split': data['split_sha256'],
    'Checkpoint': f'step {summary["checkpoint_step"]:,}'
    + (
      f' (best by validation Dice: step {best["step"]:,},'
      f' {pages.percent(best["dice"])})'
      if best
      else ''
    ),
    'Training command': command and shlex.join(['python', *command]),
    'Trained on device': f'{environment["device"]} ({environment["platform"]})'
    f', count: {environment["num_devices"]}',
    'Commit of the code': environment['commit'],
    'Versions': ', '.join(
      f'{package} {version}'
      for package, version in {
        'Python': environment['python'],
        **environment['packages'],
      }.items()
    ),
  }
  return {term: value or 'unknown' for term, value in text.items()}


def differences(config: config_lib.Config) -> list[tuple[str, str, str]]:
  """Fields that differ from their defaults: name, value and default."""
  default = config_lib.flat(config_lib.Config())
  return [
    (name, str(value), str(default[name]) or '(empty)')
    for name, value in config_lib.flat(config).items()
    if value != default[name]
  ]


def data_notes(
  config: config_lib.Config, evaluation: result_files.Evaluation
) -> list[str]:
  """Describes the training data and the scored data."""
  return [
    f'{what}: {data_note(name)}'
    for what, name in (
      ('Trained on', config.data.source),
      ('Scored on', evaluation.summary['data']['name']),
    )
  ]


def few_dark_skins(
  config: config_lib.Config, evaluation: result_files.Evaluation
) -> list[str]:
  """What the data of training and scores cannot say about dark skins."""
  sources = config.data.source, evaluation.summary['data']['name']
  if 'ham10000' not in sources:
    return []
  if sources[1] == 'ham10000':
    return [_FEW_DARK_SKINS]
  return [
    'The model was trained on HAM10000, which holds few dark skins'
    ' (T. Kalb et al., arXiv:2308.09640).'
  ]


def data_note(source: str) -> str:
  """Describes a data set by the name of its source."""
  notes = {'ham10000': _HAM10000, 'synthetic': _SYNTHETIC}
  return notes.get(source, f'{source}. Ask its owner for the licence.')


_OPTIMIZERS = {'adam': 'Adam', 'adamw': 'AdamW'}
_LOSSES = {
  'bce': 'binary cross-entropy',
  'bce_dice': 'binary cross-entropy plus soft Dice',
  'focal_tversky': 'focal Tversky loss',
}
# How many views of an image are averaged.
VIEWS = {'off': 1, 'flips': 4, 'dihedral': 8}


_ARCHITECTURES = {
  'unet': 'U-Net',
  'fcn': 'FCN',
  'segnet': 'SegNet',
  'deeplabv3': 'DeepLabV3',
  'deeplabv3plus': 'DeepLabV3+',
  'attention_unet': 'Attention U-Net',
  'unetplusplus': 'UNet++',
  'resunetplusplus': 'ResUNet++',
  'fpn': 'FPN',
  'manet': 'MA-Net',
  'linknet': 'LinkNet',
  'pspnet': 'PSPNet',
}


def network(config: config_lib.Config) -> str:
  """The network's name with what tells it from others of that name."""
  model = config.model
  name = _ARCHITECTURES[model.architecture]
  rest = model.encoder or f'base width {model.width}'
  start = ''
  if config.train.init_from:
    start = ' (at the start: the weights of another run)'
  elif model.encoder_weights == 'imagenet':
    start = ' (at the start: ImageNet weights)'
  elif model.encoder_weights:
    start = ' (at the start: the weights of a file)'
  return f'{name} {"on" if model.encoder else "of"} {rest}{start}'


def model(config: config_lib.Config) -> str:
  """Describes the model and its training in a few sentences."""
  height, width = config.data.image_size
  train = config.train
  views = VIEWS[config.evaluation.test_time_augmentation]
  sentences = [
    f'{network(config)} for images of {height} x {width} pixels, with'
    f' convolutions in {config.model.compute_dtype}.'
    f' Configured training: {train.epochs} epochs in batches of'
    f' {train.batch_size}, optimiser {_OPTIMIZERS[train.optimizer]}, learning'
    f' rate {train.learning_rate:g} ({train.schedule}), loss'
    f' {_LOSSES[train.loss]}.'
  ]
  if train.ema:
    sentences.append('Predictions use a moving average of the weights.')
  if views > 1:
    sentences.append(
      f'Probabilities are averaged over {views} flipped or rotated views.'
    )
  return ' '.join(sentences)


def loss_note(config: config_lib.Config) -> str:
  """Explains how training and validation loss differ; '' if they do not."""
  train = config.train
  if train.loss == 'bce' and not train.border_smoothing:
    return ''
  return (
    f'; the training loss is {_LOSSES[train.loss]}'
    + (' with softened outlines' if train.border_smoothing else '')
    + ', the validation loss is binary cross-entropy: do not compare them'
  )
