"""Names that public PyTorch U-Nets give to our modules."""

from collections.abc import Callable
from typing import Any

# Names and list indices that lead to one of our modules.
Path = tuple[Any, ...]
# Place of our parts in the public models' nn.Sequential.
_PLACES = {'conv1': 0, 'norm1': 1, 'conv2': 3, 'norm2': 4}


def _skinseg(path: Path) -> str:
  return '.'.join(map(str, path))


def _aladdinpersson(path: Path) -> str:
  match path:
    case ('downs', level, part):
      return f'downs.{level}.conv.{_PLACES[part]}'
    case ('bottleneck', part):
      return f'bottleneck.conv.{_PLACES[part]}'
    case ('ups', level):
      return f'ups.{2 * level}'
    case ('up_blocks', level, part):
      return f'ups.{2 * level + 1}.conv.{_PLACES[part]}'
    case ('head',):
      return 'final_conv'
  raise ValueError(f'no place for {path} in the U-Net')


def _milesial(path: Path) -> str:
  match path:
    case ('downs', 0, part):
      return f'inc.double_conv.{_PLACES[part]}'
    case ('downs', level, part):
      return f'down{level}.maxpool_conv.1.double_conv.{_PLACES[part]}'
    case ('bottleneck', part):
      return f'down4.maxpool_conv.1.double_conv.{_PLACES[part]}'
    case ('ups', level):
      return f'up{level + 1}.up'
    case ('up_blocks', level, part):
      return f'up{level + 1}.conv.double_conv.{_PLACES[part]}'
    case ('head',):
      return 'outc.conv'
  raise ValueError(f'no place for {path} in the U-Net')


# Namings of the paper's U-Net: ours, as in its twin scripts/torch_reference.py,
# and those of two public models. Each turns the path of a module into a name.
OF_UNET: dict[str, Callable[[Path], str]] = {
  'skinseg': _skinseg,
  'aladdinpersson': _aladdinpersson,
  'milesial': _milesial,
}
# 'twin' is for every network.
NAMINGS = ('twin', *OF_UNET)
