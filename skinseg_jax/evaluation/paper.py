"""The paper's figures, and a run's beside them.

The paper trained this U-Net on HAM10000 in PyTorch. Its four pixel counts sum
to 1999 x 224 x 224: all validation images, pooled. IoU and specificity are
worked out from the counts.
"""

from collections.abc import Mapping
from typing import Any

from skinseg_jax.metrics import confusion

COUNTS = {'tp': 20_781_788, 'fp': 595_742, 'fn': 3_945_663, 'tn': 74_978_631}

# Of the last of its 20 epochs.
TRAINING_LOSS = 0.1232
TRAINING_DICE = 0.9102


def scores() -> dict[str, float]:
  """The paper's pooled scores, worked out from its counts."""
  return confusion.as_floats(confusion.ratios(COUNTS))


def final_figures() -> dict[str, dict[str, float]]:
  """The paper's last loss, Dice and accuracy, by what they were taken on."""
  validation = scores()
  return {
    'loss': {'training': TRAINING_LOSS},
    'dice': {'validation': validation['dice'], 'training': TRAINING_DICE},
    'accuracy': {'validation': validation['accuracy']},
  }


def comparison(summary: Mapping[str, Any]) -> str:
  """Sets pooled scores beside the paper's and two constant predictions.

  Args:
    summary: Contents of a run's `summary.json` on the paper's validation
      images.

  Returns:
    A table in plain text, in percent.
  """
  columns = {
    'this run': summary['pooled'],
    'paper': scores(),
    'all background': summary['baselines']['all_background'],
    'all lesion': summary['baselines']['all_lesion'],
  }
  lines = [f'{"%":12}' + ''.join(f'{name:>16}' for name in columns)]
  for score in columns['paper']:
    cells = (f'{100 * column[score]:16.2f}' for column in columns.values())
    lines.append(f'{score:12}' + ''.join(cells))
  size = 'x'.join(map(str, summary['image_size']))
  lines.append(
    f'(pooled over all pixels; this run at {size}, the paper at 224x224)'
  )
  return '\n'.join(lines)
