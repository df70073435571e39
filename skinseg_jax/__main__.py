"""Lists the commands: python -m skinseg_jax."""

import sys

_COMMANDS = {
  'main': 'train, score and report one experiment',
  'evaluate': 'score a checkpoint on its own images or on others',
  'compare': 'differences between runs, with intervals',
  'predict': 'write a mask for each image',
  'torch_weights': 'convert weights from and to PyTorch',
  'doctor': 'what this machine has, what is missing, what to type',
}


def main() -> None:
  """Prints each command with what it does."""
  print('Skin-lesion segmentation in JAX. Research software, not a medical')
  print('device.\n')
  for name, what in _COMMANDS.items():
    print(f'  python -m skinseg_jax.{name:14} {what}')
  print('\nEach explains its options with --help.')


if __name__ == '__main__':
  if sys.argv[1:]:
    sys.exit(
      f'not understood: {" ".join(sys.argv[1:])}. Commands are modules, such'
      ' as: python -m skinseg_jax.predict --help'
    )
  main()
