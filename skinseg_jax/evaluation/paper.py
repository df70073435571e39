"""The paper's scores and their comparison with a run.

The paper trained this U-Net on HAM10000 in PyTorch. Its four pixel counts sum
to 1999 x 224 x 224, so they cover all validation images. IoU and specificity
are computed from these counts.
"""

from collections.abc import Mapping
from typing import Any

from skinseg_jax.metrics import confusion

COUNTS = {'tp': 20_781_788, 'fp': 595_742, 'fn': 3_945_663, 'tn': 74_978_631}

# Values of the last of its 20 epochs.
TRAINING_LOSS = 0.1232
TRAINING_DICE = 0.9102


def scores() -> dict[str, float]:
  """The paper's pooled scores, computed from its counts."""
  return confusion.as_floats(confusion.ratios(COUNTS))


def final_figures() -> dict[str, dict[str, float]]:
  """The paper's final loss, Dice and accuracy, by subset."""
  validation = scores()
  return {
    'loss': {'training': TRAINING_LOSS},
    'dice': {'validation': validation['dice'], 'training': TRAINING_DICE},
    'accuracy': {'validation': validation['accuracy']},
  }


def comparison(summary: Mapping[str, Any]) -> str:
  """Compares a run with the paper and with two constant predictions.

  Args:
    summary: Contents of a run's `summary.json` for the paper's validation
      images.

  Returns:
    A plain-text table of pooled scores, in percent.
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
