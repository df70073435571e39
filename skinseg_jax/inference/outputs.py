"""The files that are written for each predicted image."""

import dataclasses
import pathlib

import numpy as np
from PIL import Image

from skinseg_jax.quality import signs

# Sky blue of Okabe and Ito, which colour-blind people can also see.
_TINT = np.array([86, 180, 233], np.float32)
# First and last bytes of a whole PNG file.
_PNG_START = b'\x89PNG\r\n\x1a\n'
_PNG_END = b'\0\0\0\0IEND\xaeB`\x82'


@dataclasses.dataclass(frozen=True)
class Outputs:
  """Folders for the predictions.

  Attributes:
    masks: Folder of `<name>.png`, 0 or 255, grey.
    overlays: Folder of `<name>.png`, the image with its mask; None for none.
    probabilities: Folder of `<name>.png`, 255 times the probability, grey;
      None for none.
    uncertainties: Folder of `<name>.png`, 65535 times the entropy in bits,
      16-bit grey; None for none.
  """

  masks: pathlib.Path
  overlays: pathlib.Path | None
  probabilities: pathlib.Path | None
  uncertainties: pathlib.Path | None = None

  @property
  def folders(self) -> list[pathlib.Path]:
    """All folders to write to."""
    folders = (
      self.masks, self.overlays, self.probabilities, self.uncertainties
    )  # fmt: skip
    return [folder for folder in folders if folder]

  def targets(self, name: str) -> list[pathlib.Path]:
    """Every file that is written for the image of that name."""
    return [folder / f'{name}.png' for folder in self.folders]

  def complete(self, name: str) -> bool:
    """Whether all of them are there from the first byte to the last."""
    return all(_is_whole(target) for target in self.targets(name))

  def write(
    self,
    name: str,
    mask: np.ndarray,
    probability: np.ndarray,
    image: np.ndarray | None,
  ) -> None:
    """Writes the files of one image, each of them whole or not at all.

    Args:
      name: Path below the folders, without extension.
      mask: bool [height, width].
      probability: float32 [height, width] in [0, 1].
      image: RGB, uint8 [height, width, 3]; needed only with `overlays`.
    """
    _save(mask.astype(np.uint8) * 255, self.masks / f'{name}.png')
    if self.probabilities:
      grey = np.rint(probability * 255).astype(np.uint8)
      _save(grey, self.probabilities / f'{name}.png')
    if self.uncertainties:
      deep = np.rint(signs.entropy(probability) * 65535).astype(np.uint16)
      _save(deep, self.uncertainties / f'{name}.png')
    if self.overlays and image is not None:
      _save(_overlay(image, mask), self.overlays / f'{name}.png')


def _overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """The image, tinted inside the mask, with a white line at the border."""
  image = image.copy()
  image[mask] = (0.75 * image[mask] + 0.25 * _TINT).astype(np.uint8)
  line = np.zeros_like(mask)
  for axis in (0, 1):
    changes = np.diff(mask, axis=axis)
    line |= np.pad(changes, [(0, 1) if a == axis else (0, 0) for a in (0, 1)])
  image[line] = 255
  return image


def _save(pixels: np.ndarray, path: pathlib.Path) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(path.name + '.tmp')
  Image.fromarray(pixels).save(temporary, 'PNG')
  temporary.replace(path)


def _is_whole(path: pathlib.Path) -> bool:
  try:
    with path.open('rb') as file:
      start = file.read(len(_PNG_START))
      file.seek(-len(_PNG_END), 2)
      return start == _PNG_START and file.read() == _PNG_END
  except OSError:  # Missing, or too short for the seek.
    return False
