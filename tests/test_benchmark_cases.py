import zipfile

import pytest

pytestmark = pytest.mark.torch
pytest.importorskip('torch_models')
benchmark = pytest.importorskip('benchmark')
cases = pytest.importorskip('benchmark_cases')
reference = pytest.importorskip('torch_reference')


@pytest.mark.parametrize('layout', ['kaggle', 'zips'])
def test_reference_finds_what_our_side_finds(tmp_path, layout):
  raw_dir = tmp_path / 'a!b'
  benchmark.write_generated(raw_dir, 2)
  images = raw_dir / 'HAM10000_images_part_1'
  masks = raw_dir / 'HAM10000_segmentations_lesion_tschandl'
  for image in list(images.iterdir()):
    image.rename(image.with_suffix('.jpeg'))
  if layout == 'kaggle':
    masks.rename(raw_dir / 'masks')
  else:
    for folder in (images, masks):
      with zipfile.ZipFile(folder.with_suffix('.zip'), 'w') as archive:
        for file in folder.iterdir():
          archive.write(file, f'{folder.name}/{file.name}')
          archive.writestr(f'__MACOSX/{folder.name}/._{file.name}', b'')
          file.unlink()
      folder.rmdir()
  examples = reference.list_examples(raw_dir)
  assert [name for name, _, _ in examples] == cases.RawSource(
    raw_dir, 2
  ).image_ids
  dataset = reference.SkinLesionDataset(examples, (16, 16), augment=False)
  assert all(mask.any() for _, mask in (dataset[i] for i in range(2)))
