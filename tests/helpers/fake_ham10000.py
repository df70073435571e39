"""Small generated files in the layouts in which HAM10000 is published."""

import csv
import dataclasses
import io
import pathlib
import zipfile

import numpy as np
from PIL import Image

MASK_FOLDER = 'HAM10000_segmentations_lesion_tschandl'
CLASSES = ('nv', 'mel', 'bkl', 'bcc', 'akiec', 'vasc', 'df')


@dataclasses.dataclass
class FakeImage:
  """One image: the content of its files, and the mask that must be read."""

  image_id: str
  image: bytes
  mask: bytes
  lesion: np.ndarray
  row: dict[str, str]


def make_images(
  num_images: int = 7, *, size: tuple[int, int] = (45, 60), seed: int = 0
) -> list[FakeImage]:
  """Images from ISIC_0024306 on, of `size` (height, width) in pixels.

  Every second lesion has two images. The masks of images 1 and 2 are palette
  files with inverted indices, like 402 of the real masks. The mask of image 3
  is all lesion. The other masks are grey files with values 0 and 255.
  """
  rng = np.random.default_rng(seed)
  return [_make_image(index, size, rng) for index in range(num_images)]


def _make_image(index: int, size: tuple[int, int], rng) -> FakeImage:
  height, width = size
  y, x = np.mgrid[:height, :width]
  center_y, center_x = rng.uniform(0.4, 0.6, size=2) * size
  radius = rng.uniform(0.15, 0.35) * min(size)
  lesion = (y - center_y) ** 2 + 0.6 * (x - center_x) ** 2 < radius**2
  if index == 3:
    lesion[:] = True
  image = np.where(lesion[..., None], (110, 70, 50), (220, 170, 150))
  image = image + rng.normal(0, 5, size=image.shape)
  image_id = f'ISIC_{24306 + index:07d}'
  return FakeImage(
    image_id=image_id,
    image=encode(Image.fromarray(image.clip(0, 255).astype(np.uint8)), 'JPEG'),
    mask=palette_png(lesion) if index in (1, 2) else grey_png(lesion * 255),
    lesion=lesion.astype(np.uint8),
    row={
      'lesion_id': f'HAM_{index * 2 // 3:07d}',  # 0, 0, 1, 2, 2, 3, 4, 4, ...
      'image_id': image_id,
      'dx': CLASSES[index * 2 // 3 % len(CLASSES)],
      'dx_type': 'histo',
      'age': '' if index == 0 else f'{40 + index}.0',
      'sex': ('male', 'female', 'unknown')[index % 3],
      'localization': 'back',
      'dataset': 'vidir_modern',
    },
  )


def encode(image: Image.Image, file_format: str) -> bytes:
  buffer = io.BytesIO()
  image.save(buffer, file_format)
  return buffer.getvalue()


def grey_png(values: np.ndarray) -> bytes:
  return encode(Image.fromarray(values.astype(np.uint8)), 'PNG')


def palette_png(lesion: np.ndarray) -> bytes:
  """A palette PNG: index 0 is white, lesion; index 1 is black, skin."""
  image = Image.fromarray((~lesion.astype(bool)).astype(np.uint8), mode='P')
  image.putpalette([255, 255, 255, 0, 0, 0])
  return encode(image, 'PNG')


def write_zips(
  directory: pathlib.Path, images: list[FakeImage], *, parts: int = 2
) -> pathlib.Path:
  """Writes the Dataverse files, with the images in any number of parts."""
  directory.mkdir(parents=True, exist_ok=True)
  for part in range(parts):
    path = directory / f'HAM10000_images_part_{part + 1}.zip'
    with zipfile.ZipFile(path, 'w') as file:
      for image in images[part::parts]:
        file.writestr(f'{image.image_id}.jpg', image.image)
  path = directory / f'{MASK_FOLDER}.zip'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
    file.writestr(f'{MASK_FOLDER}/', '')
    for image in images:
      name = f'{MASK_FOLDER}/{image.image_id}_segmentation.png'
      file.writestr(name, image.mask)
    name = f'__MACOSX/{MASK_FOLDER}/._{images[0].image_id}_segmentation.png'
    file.writestr(name, b'Mac OS X')
  write_metadata(directory, images)
  return directory


def write_folders(
  directory: pathlib.Path,
  images: list[FakeImage],
  *,
  mask_folder: str = f'{MASK_FOLDER}/{MASK_FOLDER}',
) -> pathlib.Path:
  """Writes unpacked Dataverse files; with `mask_folder`, Kaggle's layout."""
  for index, image in enumerate(images):
    folder = directory / f'HAM10000_images_part_{1 + index % 2}'
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f'{image.image_id}.jpg').write_bytes(image.image)
    folder = directory / mask_folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f'{image.image_id}_segmentation.png').write_bytes(image.mask)
  write_metadata(directory, images)
  return directory


def write_metadata(directory: pathlib.Path, images: list[FakeImage]) -> None:
  """Writes rows that are not in the order of ids, like the real metadata."""
  path = directory / 'HAM10000_metadata.csv'
  with path.open('w', newline='') as file:
    writer = csv.DictWriter(file, list(images[0].row))
    writer.writeheader()
    writer.writerows(image.row for image in reversed(images))
