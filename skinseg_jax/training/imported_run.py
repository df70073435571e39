"""Creates a run folder that starts from the weights of a PyTorch model."""

import dataclasses
import pathlib

from flax import nnx

from skinseg_jax import config as config_lib
from skinseg_jax.data import cache, input_pipeline, splits
from skinseg_jax.data.sources import catalog
from skinseg_jax.run import checkpointing, run_folder
from skinseg_jax.runtime import errors
from skinseg_jax.training import progress, train_state
from skinseg_jax.weights import tensor_files, torch_layouts


def import_run(
  weights: pathlib.Path, config: config_lib.Config, workdir: pathlib.Path
) -> None:
  """Creates a run folder with the weights in its checkpoint of step 0.

  The run can be evaluated, used to predict, and trained further.

  Raises:
    InputError: If weights, config or data do not fit, or if the folder cannot
      be created or is not empty.
  """
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    empty = not any(workdir.iterdir())
  except OSError as error:
    raise errors.InputError(
      f'{workdir} cannot be a run folder: {error.strerror}; give a new'
      ' --workdir.'
    ) from error
  if not empty:
    raise errors.InputError(f'{workdir} is not empty; give a new --workdir.')
  # The weights of the file take the place of these.
  config = dataclasses.replace(
    config,
    model=dataclasses.replace(config.model, encoder_weights=''),
    train=dataclasses.replace(config.train, init_from=''),
  )
  sharding = input_pipeline.data_sharding()
  static = train_state.create(config, sharding, num_updates=1)
  state = static.state
  model = nnx.merge(static.eval_graphdef, state[0])
  model_state = torch_layouts.to_flax(tensor_files.read(weights), model)
  source = catalog.open_source(config.data)
  split = splits.make_split(config.data, source.metadata)
  data = cache.open_cache(
    source, config.data.image_size, pathlib.Path(config.data.data_dir)
  )
  iterator = iter(
    input_pipeline.training_batches(
      data,
      input_pipeline.select(data, split.train),
      batch_size=config.train.batch_size,
      seed=config.train.seed,
      sharding=sharding,
    )
  )
  checkpoint = checkpointing.Checkpoint(
    model=model_state,
    optimizer=train_state.start_from(state, model_state)[1],
    data=iterator.get_state(),
    progress=progress.Progress().as_dict(),
  )
  iterator.close()
  checkpoints = checkpointing.Checkpoints(run_folder.checkpoints_dir(workdir))
  checkpoints.save(0, checkpoint, None)
  checkpoints.close()
  # Last, because a folder with a config counts as complete.
  run_folder.begin(workdir, config, source, split)
