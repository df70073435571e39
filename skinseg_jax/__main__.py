"""Lists the commands: python -m skinseg_jax."""

import sys

_COMMANDS = {
  'main': 'train, score and report one experiment',
  'cross_validate': 'train and score every fold of the data',
  'evaluate': 'score a checkpoint on its own or other images',
  'compare': 'compare runs, with confidence intervals',
  'predict': 'write a mask for each image',
  'explain': 'show what masks rest on',
  'follow': 'compare pictures of one lesion over time',
  'calibrate_review': 'learn which masks need a review',
  'serve': 'open a page that outlines pictures, and an endpoint',
  'export': 'write a model in a form that others can use',
  'torch_weights': 'convert weights from and to PyTorch',
  'doctor': 'check this machine and suggest fixes',
}


def main() -> None:
  """Prints a list of the commands."""
  print('Skin-lesion segmentation in JAX. Research software, not a medical')
  print('device.\n')
  for name, what in _COMMANDS.items():
    print(f'  python -m skinseg_jax.{name:16} {what}')
  print('\nAdd --help to a command to see its options.')


if __name__ == '__main__':
  if sys.argv[1:]:
    sys.exit(
      f'unknown arguments: {" ".join(sys.argv[1:])}. Commands are modules, for'
      ' example: python -m skinseg_jax.predict --help'
    )
  main()
