"""Split files come back as they were written, or are refused."""

import hashlib

import hypothesis
import pytest
from hypothesis import strategies as st

from skinseg_jax.data import splits
from skinseg_jax.runtime import errors


def test_split_file_is_what_its_hash_says(tmp_path):
  split = splits.Split(train=['a', 'c,d'], validation=['b'])
  path = tmp_path / 'split.csv'
  splits.write_split(split, path)
  content = path.read_bytes()
  assert content == (b'image_id,subset\na,train\nb,validation\n"c,d",train\n')
  assert splits.split_hash(split) == hashlib.sha256(content).hexdigest()
  assert splits.read_split(path) == split
  assert list(tmp_path.iterdir()) == [path]


_IDS = st.text(min_size=1).filter(
  lambda name: name.isprintable() and name[0] not in '=+-@'
)


@hypothesis.settings(
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(st.dictionaries(_IDS, st.booleans()))
def test_split_files_come_back_whole(tmp_path, members):
  split = splits.Split(
    train=sorted(name for name in members if members[name]),
    validation=sorted(name for name in members if not members[name]),
  )
  splits.write_split(split, tmp_path / 'split.csv')
  assert splits.read_split(tmp_path / 'split.csv') == split


@pytest.mark.parametrize(
  'image_id', ['=1+1', '+1', '-1', '@a', '', 'a\nb', '\ta', '\udcff']
)
def test_ids_unfit_for_csv_are_refused(tmp_path, image_id):
  split = splits.Split(train=['a', image_id], validation=['b'])
  with pytest.raises(errors.InputError) as caught:
    splits.write_split(split, tmp_path / 'split.csv')
  assert repr(image_id) in str(caught.value)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (None, 'cannot be read: .*No such file'),
    (b'', 'cannot be read: .*empty'),
    (b'image_id,set\na,train\n', 'lacks the column subset'),
    (b'PK\x03\x04', 'cannot be read: .*save it as csv'),
    (b'image_id,subset\n"a,train\n', 'cannot be read: .*unexpected end'),
  ],
)
def test_unreadable_split_files_are_refused(tmp_path, content, message):
  path = tmp_path / 'split.csv'
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(errors.InputError, match=message):
    splits.read_split(path)
