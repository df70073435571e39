"""Model and optimiser, as a static graph and a state of arrays.

The usual layout is (model, optimizer). With a moving average of the weights it
is (average, (model, optimizer)). The first part is always the model that
predicts; the second part is what training needs in addition.
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import parameter_overview
from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.inference import trained_model
from skinseg_jax.models import build
from skinseg_jax.runtime import errors, paths
from skinseg_jax.weights import pretrained


@dataclasses.dataclass(frozen=True)
class TrainState:
  """The structures and arrays that a training step uses.

  Attributes:
    graphdef: Static structure of all parts, in training mode.
    eval_graphdef: Static structure of only the model, in evaluation mode.
    state: Arrays of all parts; `state[0]` is the model that predicts.
  """

  graphdef: nnx.GraphDef
  eval_graphdef: nnx.GraphDef
  state: Any


@functools.cache
def create_optimizer(
  config: config_lib.TrainConfig, num_updates: int
) -> optax.GradientTransformation:
  """Adam or AdamW with PyTorch's constants: 0.9 and 0.999, epsilon 1e-8.

  AdamW (Loshchilov and Hutter, 2019, arXiv:1711.05101) decays only kernels,
  not biases or the scales of batch norm. The same config and number of updates
  give the same object, so that a compiled training step is reused.
  """
  rate = config.learning_rate
  if config.schedule == 'cosine':
    rate = cosine(config, num_updates)
  match config.optimizer:
    case 'adam':
      optimizer = optax.adam(rate)
    case 'adamw':
      kernels = lambda params: jax.tree.map(lambda x: x.ndim > 1, params)
      optimizer = optax.adamw(
        rate, weight_decay=config.weight_decay, mask=kernels
      )
    case _:
      raise ValueError(
        f"optimizer must be 'adam' or 'adamw': {config.optimizer!r}"
      )
  if config.encoder_rate == 1:
    return optimizer
  slower = optax.masked(optax.scale(config.encoder_rate), _in_encoder)
  return optax.chain(optimizer, slower)


def _in_encoder(params: Any) -> Any:
  """Whether each parameter is one of the encoder."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[0].key == 'encoder', params
  )


def cosine(config: config_lib.TrainConfig, num_updates: int) -> optax.Schedule:
  """Learning rate of each update, numbered from 0.

  It rises linearly from 0 during the warm-up, then falls along half a cosine
  to 0 after the last update (Loshchilov and Hutter, 2017, arXiv:1608.03983).

  Args:
    config: Its `learning_rate` is the highest rate; its `warmup` is the
      fraction of updates spent on the warm-up.
    num_updates: Number of updates of the whole training.
  """
  rate = config.learning_rate
  rising = round(config.warmup * num_updates)
  falling = optax.cosine_decay_schedule(rate, max(1, num_updates - rising))
  if not rising:
    return falling
  rise = optax.linear_schedule(0.0, rate, rising)
  return optax.join_schedules([rise, falling], [rising])


def create(
  config: config_lib.Config,
  sharding: jax.sharding.NamedSharding,
  *,
  num_updates: int,
) -> TrainState:
  """Creates the state of step 0, with a copy on every device of the mesh.

  Args:
    config: Config of model and optimiser.
    sharding: Sharding of the batches; the state is copied to its whole mesh.
    num_updates: Number of updates of the whole training, for the schedule; 1
      is enough if the state is only used to predict.
  """
  shapes = abstract(config, sharding, num_updates=num_updates)
  # Computed on the CPU, so that all kinds of devices start from equal weights.
  platforms = jax.config.jax_platforms  # type: ignore[attr-defined]
  has_cpu = not platforms or 'cpu' in platforms
  cpu = jax.local_devices(backend='cpu')[0] if has_cpu else None
  with jax.default_device(cpu):
    state = _init(config)
  place = lambda leaf, shape: jax.device_put(leaf, shape.sharding)
  return dataclasses.replace(
    shapes, state=jax.tree.map(place, state, shapes.state)
  )


def abstract(
  config: config_lib.Config,
  sharding: jax.sharding.NamedSharding,
  *,
  num_updates: int,
) -> TrainState:
  """Returns the result of `create` with shapes in place of arrays."""
  parts = nnx.eval_shape(lambda: _build(config, num_updates))
  return TrainState(
    graphdef=nnx.graphdef(parts),
    eval_graphdef=build.in_evaluation_mode(parts[0]),
    state=build.on_every_device(nnx.state(parts), sharding),
  )


def _build(config: config_lib.Config, num_updates: int) -> tuple:
  train = config.train
  model = build.create(config.model, train.seed, remat=train.remat)
  optimizer = nnx.Optimizer(
    model, create_optimizer(train, num_updates), wrt=nnx.Param
  )
  if not train.ema:
    return model, optimizer
  return nnx.clone(model), (model, optimizer)


# Compiled as one program, because op by op it takes twice as long.
@functools.partial(jax.jit, static_argnames='config')
def _init(config: config_lib.Config) -> Any:
  # The arrays do not depend on the number of updates.
  return nnx.state(_build(config, num_updates=1))


def start_from(state: Any, model_state: Any) -> Any:
  """The state of step 0 with other weights, also in the moving average."""
  like = jax.tree.structure(state)
  rest = state[1]
  if 0 in rest:  # (model, optimizer); the parts of an optimiser have names.
    rest = {0: model_state, 1: rest[1]}
  return jax.tree.unflatten(like, jax.tree.leaves((model_state, rest)))


def find_initial_weights(config: config_lib.Config) -> dict[str, Any]:
  """What a run starts from besides its seed, to be written down.

  Downloads a pretrained encoder if need be.

  Returns:
    Empty, or `encoder_weights` with `file` and `sha256`, or `init_from` with
    the `workdir` and `step` of a checkpoint and the `sha256` of its values.

  Raises:
    InputError: If a file or folder is missing or not what it should be.
  """
  model, train = config.model, config.train
  if train.init_from:
    source = _checkpoint_of(config)
    return {
      'init_from': {
        'workdir': train.init_from,
        'step': source.step,
        'sha256': _digest(source.state),
      }
    }
  if model.encoder_weights:
    found = _encoder_file(config)
    return {
      'encoder_weights': {'file': str(found.path), 'sha256': found.sha256}
    }
  return {}


def with_initial_weights(
  static: TrainState, config: config_lib.Config, recorded: dict[str, Any]
) -> Any:
  """The state of step 0 with the weights that a run starts from.

  Args:
    static: What `create` made.
    config: Of the run.
    recorded: What `find_initial_weights` returned when the run began.

  Raises:
    InputError: If they are no longer what was recorded.
  """
  if not recorded:
    return static.state
  if 'init_from' in recorded:
    model_state = _recorded_state(config, recorded['init_from'])
  else:
    found = _encoder_file(config)
    found = found._replace(sha256=recorded['encoder_weights']['sha256'])
    model = nnx.merge(static.eval_graphdef, static.state[0])
    nnx.update(model.encoder, pretrained.read(found, model.encoder))
    model_state = nnx.state(model)
  # Copied: a training step takes the buffers of each part.
  return jax.tree.map(jnp.copy, start_from(static.state, model_state))


def _recorded_state(
  config: config_lib.Config, recorded: Mapping[str, Any]
) -> Any:
  """The values of the checkpoint that a run began from."""
  again = 'start this run again with a new --workdir.'
  try:
    state = _checkpoint_of(config, str(recorded['step'])).state
  except errors.InputError as error:
    raise errors.InputError(
      f'this run began from step {recorded["step"]} of {recorded["workdir"]},'
      f' which cannot be read any more; {again}\n{error}'
    ) from error
  if _digest(state) != recorded['sha256']:
    raise errors.InputError(
      f'this run began from step {recorded["step"]} of {recorded["workdir"]},'
      f' which holds other weights now; {again}'
    )
  return state


def _digest(state: Any) -> str:
  """SHA-256 of all values, in hex."""
  digest = hashlib.sha256()
  for leaf in jax.tree.leaves(state):
    digest.update(np.asarray(leaf).tobytes())
  return digest.hexdigest()


def _encoder_file(config: config_lib.Config) -> pretrained.WeightsFile:
  model, data_dir = config.model, pathlib.Path(config.data.data_dir)
  return pretrained.find(model.encoder, model.encoder_weights, data_dir)


def _checkpoint_of(
  config: config_lib.Config, checkpoint: str | None = None
) -> trained_model.TrainedModel:
  """The best checkpoint of the run that `train.init_from` names, or another."""
  workdir = paths.user_path(config.train.init_from)
  loaded = trained_model.load(workdir, checkpoint or 'last')
  names = ('architecture', 'encoder', 'width')
  differing = [
    f'model.{name}: {getattr(loaded.config.model, name)!r} there,'
    f' {getattr(config.model, name)!r} now'
    for name in names
    if getattr(loaded.config.model, name) != getattr(config.model, name)
  ]
  if differing:
    raise errors.InputError(
      f'train.init_from: {workdir} holds another network:\n'
      + errors.listing(differing)
      + '\nSet these fields to what they are there.'
    )
  if checkpoint is None and loaded.best:
    return trained_model.load(workdir, str(loaded.best['step']))
  return loaded


def overview(model_state: Any) -> str:
  """Table of all parameters and running statistics, with their number."""
  return parameter_overview.get_parameter_overview(
    nnx.to_pure_dict(model_state), include_stats=False
  )


def count(model_state: Any, kind: type[nnx.Variable]) -> int:
  """Number of values of one kind: `nnx.Param` or `nnx.BatchStat`."""
  return sum(
    leaf.size for leaf in jax.tree.leaves(nnx.filter_state(model_state, kind))
  )
