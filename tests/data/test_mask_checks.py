import re
import shlex

import numpy as np
import pytest
from scipy import ndimage

from skinseg_jax.data import cache, mask_checks
from skinseg_jax.data.sources import synthetic
from skinseg_jax.runtime import errors

# What can be done to masks, [N, H, W], and the finding that names it.
_FAULTS = {
  'inverted': lambda masks: 1 - masks,
  'misfit': lambda masks: np.roll(masks, 1, axis=0),
  'flipped left to right': lambda masks: masks[:, :, ::-1],
  'flipped upside down': lambda masks: masks[:, ::-1],
  'turned by 180 degrees': lambda masks: masks[:, ::-1, ::-1],
  # numpy's positive quarter turn goes to the left in a picture.
  'turned by 90 degrees to the left': lambda masks: np.rot90(masks, 1, (1, 2)),
  'turned by 90 degrees to the right': lambda masks: np.rot90(
    masks, -1, (1, 2)
  ),
}


def _examine(images, masks, indices=None):
  data = cache.CachedData(
    images, masks, [f'i{n}' for n in range(len(masks))], fingerprint=''
  )
  indices = np.arange(len(masks)) if indices is None else indices
  remedy = mask_checks.training_remedy(inverted=False)
  return mask_checks.examine(data, indices, remedy)


def _kinds(*args):
  return [found.kind for found in _examine(*args).findings]


@pytest.fixture(scope='module')
def generated():
  """60 generated images and masks of 64 px."""
  source = synthetic.SyntheticSource(num_images=60, size=(64, 64), seed=3)
  examples = [source[i] for i in range(60)]
  return tuple(
    np.stack([e[key] for e in examples]) for key in ('image', 'mask')
  )


def _discs(count=40, size=64, seed=0):
  """Noisy skin (200) with a dark disc (80) at a random place; their masks."""
  rng = np.random.default_rng(seed)
  rows, columns = np.mgrid[:size, :size]
  centres = rng.uniform(0.3, 0.7, (count, 2, 1, 1)) * size
  radii = rng.uniform(0.12, 0.25, (count, 1, 1)) * size
  distance = np.hypot(rows - centres[:, 0], columns - centres[:, 1])
  masks = (distance < radii).astype(np.uint8)
  grey = 200 - 120.0 * masks + rng.normal(0, 8, masks.shape)
  images = np.repeat(grey[..., None], 3, axis=3)
  return images.clip(0, 255).astype(np.uint8), masks


def test_good_masks_pass(generated):
  assert _kinds(*generated) == []


@pytest.mark.parametrize('fault', _FAULTS)
@pytest.mark.parametrize('share', [0.3, 1.0])
def test_what_was_done_to_masks_is_named(fault, share):
  images, masks = _discs()
  wrong = round(share * len(masks))
  masks[:wrong] = _FAULTS[fault](masks[:wrong])
  (found,) = _examine(images, masks).findings
  assert found.kind == fault
  assert found.images == pytest.approx(wrong, rel=0.4)
  assert f'{found.images} of 40' in found.text
  listed = {int(name[1:]) for name in found.image_ids}
  assert 1 <= len(listed) <= 10
  assert len([i for i in listed if i >= wrong]) <= 1


@pytest.mark.parametrize('share', [0.3, 1.0])
def test_inverted_masks_of_small_lesions_off_the_centre(share):
  rng = np.random.default_rng(2)
  rows, columns = np.mgrid[:112, :112]
  centres = rng.uniform(14, 98, (60, 2, 1, 1))
  distance = np.hypot(rows - centres[:, 0], columns - centres[:, 1])
  masks = (distance < rng.uniform(8, 13, (60, 1, 1))).astype(np.uint8)
  grey = np.where(masks, 80, 200) + rng.normal(0, 8, masks.shape)
  images = np.repeat(grey[..., None], 3, axis=3).clip(0, 255).astype(np.uint8)
  assert _kinds(images, masks) == []
  wrong = round(share * 60)
  masks[:wrong] = 1 - masks[:wrong]
  (found,) = _examine(images, masks).findings
  assert (found.kind, found.images) == ('inverted', wrong)
  # Lesions of 2 to 4 % are cut out.
  assert re.search(r'100% of the border.* 9[5-8]% of all of it', found.text)


def test_large_lesions_pass():
  images, masks = _discs()
  masks[:20] = 1
  masks[:20, :9, :9] = 0  # Skin in one corner: 90 % of the border is lesion.
  assert 'inverted' not in _kinds(images, masks)


def test_light_lesions_on_dark_skin_pass():
  images, masks = _discs()
  assert _kinds(255 - images, masks) == []


def test_hair_and_dark_corners_pass():
  images, masks = _discs()
  rng = np.random.default_rng(5)
  hair = np.zeros(masks.shape, bool)
  for picture in hair:  # Twelve dark lines across each picture.
    for start, end in rng.integers(0, 64, (12, 2)):
      steps = np.arange(64)
      picture[np.linspace(start, end, 64).round().astype(int), steps] = True
  rows, columns = np.mgrid[-1:1:64j, -1:1:64j]
  images[hair | (np.hypot(rows, columns) > 1.2)] = 30
  assert _kinds(images, masks) == []


def test_rough_outlines_pass():
  images, masks = _discs()
  rough = ndimage.binary_dilation(masks, np.ones((1, 5, 5)))
  assert _kinds(images, rough.astype(np.uint8)) == []


def test_images_without_any_contrast_accuse_nobody():
  images, masks = _discs()
  assert _kinds(np.full_like(images, 128), masks) == []


def test_useless_masks_are_refused():
  images, masks = _discs(count=4)
  for value, words in ((0, 'no lesion at all'), (1, 'lesion in every pixel')):
    found = _examine(images, np.full_like(masks, value))
    with pytest.raises(errors.InputError, match=f'4 of 4 masks.*{words}'):
      found.refuse_useless()
  _examine(images, masks).refuse_useless()


@pytest.mark.parametrize(('empty', 'full'), [(1, 1), (2, 1), (2, 2), (20, 9)])
def test_empty_beside_full_masks_are_refused(empty, full):
  images, masks = _discs(count=empty + full)
  masks[:empty], masks[empty:] = 0, 1
  found = _examine(images, masks)
  total = empty + full
  words = f'{total} of {total} masks are empty or cover the whole image'
  with pytest.raises(errors.InputError, match=f'{words}.*mask_threshold'):
    found.refuse_useless()
  assert len(found.findings) == 1


def test_many_empty_masks_and_specks_are_reported():
  images, masks = _discs()
  assert _kinds(images, np.where(np.arange(40)[:, None, None], masks, 0)) == []
  empty = np.where(np.arange(40)[:, None, None] < 12, 0, masks)
  assert _kinds(images, empty) == ['empty']
  specks = empty.copy()
  specks[:12, 32, 32] = 1  # One of 4096 pixels is less than 0.1 %.
  assert _kinds(images, specks) == ['extreme areas']


def test_only_the_named_images_are_looked_at():
  images, masks = _discs()
  masks[20:] = 1 - masks[20:]
  assert _kinds(images, masks, np.arange(20)) == []
  found = _examine(images, masks, np.arange(20, 40))
  assert [(f.kind, f.images) for f in found.findings] == [('inverted', 20)]
  assert found.findings[0].image_ids[0] == 'i20'


def test_remedy_is_what_the_user_types():
  images, masks = _discs()
  (found,) = _examine(images, 1 - masks).findings
  assert '--config.data.mask_invert=true' in found.text
  (some,) = _examine(
    images, np.where(np.arange(40)[:, None, None] < 12, 1 - masks, masks)
  ).findings
  assert '--config.data.mask_invert' not in some.text  # It would not help.
  assert 'invert the files' in some.text


@pytest.fixture(scope='module')
def real(ham10000_source, tmp_path_factory):
  """HAM10000 at 112 px."""
  directory = tmp_path_factory.mktemp('cache')
  data = cache.open_cache(ham10000_source, (112, 112), directory)
  return data.images, np.asarray(data.masks)


@pytest.mark.ham10000
@pytest.mark.slow
def test_own_masks_of_ham10000_pass(real):
  assert _kinds(*real) == []


@pytest.mark.ham10000
@pytest.mark.slow
@pytest.mark.parametrize('fault', _FAULTS)
def test_faults_in_three_tenths_of_ham10000_are_named(real, fault):
  images, masks = real[0], real[1].copy()
  rng = np.random.default_rng(7)
  wrong = rng.choice(len(masks), round(0.3 * len(masks)), replace=False)
  masks[wrong] = _FAULTS[fault](masks[wrong])
  assert _kinds(images, masks) == [fault]


@pytest.mark.ham10000
@pytest.mark.slow
def test_false_alarms_in_small_subsets_of_ham10000_are_rare(real):
  rng = np.random.default_rng(11)
  draws = (rng.choice(len(real[0]), 20, replace=False) for _ in range(1000))
  alarms = sum(bool(_kinds(*real, np.sort(draw))) for draw in draws)
  assert alarms < 10


def test_proposed_names_are_one_word_of_the_shell():
  remedy = mask_checks.scoring_remedy('PH2 Dataset images')
  assert shlex.split(remedy.invert)[-2:] == [
    '--name',
    'PH2 Dataset images_inverted',
  ]
  assert shlex.split(remedy.threshold)[-1] == 'PH2 Dataset images_threshold'
