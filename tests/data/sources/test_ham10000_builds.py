"""HAM10000 built by the script, and built of the real files."""

import collections
import pathlib
import subprocess
import sys
import zipfile

import cv2
import numpy as np
import pytest

from skinseg_jax.data import preprocessing


def run_script(*args: str) -> subprocess.CompletedProcess[str]:
  script = pathlib.Path(__file__).parents[3] / 'scripts/prepare_ham10000.py'
  return subprocess.run(
    [sys.executable, script, *args], capture_output=True, text=True
  )


def test_script_builds_data_set_and_cache(prepare, raw_dir, tmp_path):
  args = (f'--raw_dir={raw_dir}', f'--data_dir={tmp_path / "data"}')
  done = run_script(*args, '--image_size=32')
  assert done.returncode == 0, done.stderr
  assert 'images: 7\n' in done.stdout
  assert f'fingerprint: {prepare(raw_dir).fingerprint}\n' in done.stdout
  assert 'cache: 32 x 32 pixels' in done.stdout


def test_script_ends_with_one_message(raw_dir, tmp_path):
  (raw_dir / 'HAM10000_images_part_1.zip').write_bytes(b'PK')
  args = (f'--raw_dir={raw_dir}', f'--data_dir={tmp_path / "data"}')
  for done, expected in (
    (run_script(*args), 'HAM10000_images_part_1.zip: not a whole zip'),
    (run_script('--raw_dir=nowhere'), 'no such directory: nowhere'),
    (run_script('raw'), 'unknown arguments: raw'),
  ):
    assert done.returncode == 2
    assert done.stderr.count('error: ') == 1
    assert expected in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.ham10000
@pytest.mark.slow
def test_the_real_metadata(ham10000_source):
  source = ham10000_source
  assert len(source) == 10_015
  assert source.image_ids[0] == 'ISIC_0024306'
  assert source.image_ids[-1] == 'ISIC_0034320'
  count = lambda column: collections.Counter(
    row[column] for row in source.metadata
  )
  assert count('dx') == {
    'nv': 6705,
    'mel': 1113,
    'bkl': 1099,
    'bcc': 514,
    'akiec': 327,
    'vasc': 142,
    'df': 115,
  }
  assert count('age')[''] == count('sex')['unknown'] == 57
  images_of_lesions = collections.Counter(count('lesion_id').values())
  assert images_of_lesions == {1: 5514, 2: 1423, 3: 490, 4: 34, 5: 5, 6: 4}


@pytest.mark.ham10000
@pytest.mark.slow
def test_the_real_masks(ham10000_source, ham10000_dir):
  """All masks against OpenCV, which turns palettes into colours by itself."""
  path = ham10000_dir / 'HAM10000_segmentations_lesion_tschandl.zip'
  palettes, shares = [], {}
  with zipfile.ZipFile(path) as masks:
    for index, image_id in enumerate(ham10000_source.image_ids):
      data = masks.read(f'{path.stem}/{image_id}_segmentation.png')
      record = ham10000_source._records[index]
      assert record['mask'] == data
      mask = preprocessing.decode_mask(record['mask'], image_id)
      # The colour type at byte 25 of a PNG: 3 is a palette.
      if data[25] == 3:
        palettes.append(image_id)
      expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
      assert np.array_equal(mask, expected[..., 0] > 127)
      shares[image_id] = mask.mean()
  assert len(palettes) == 402
  assert (palettes[0], palettes[-1]) == ('ISIC_0024316', 'ISIC_0024717')
  smallest = min(shares, key=shares.get)
  assert (smallest, round(shares[smallest], 4)) == ('ISIC_0030639', 0.0039)
  full = [image_id for image_id, share in shares.items() if share == 1]
  assert full == ['ISIC_0026042', 'ISIC_0029819']
