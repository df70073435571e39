"""HAM10000: what is built is what was there, or nothing is built."""

import collections
import functools
import hashlib
import http.server
import pathlib
import subprocess
import sys
import threading

import fake_ham10000
import numpy as np
import pytest
from tensorflow_datasets.core.download import checksums

from skinseg_jax import config as config_lib
from skinseg_jax.data.sources import catalog, ham10000, ham10000_checks
from skinseg_jax.runtime import errors


def prepared_files(tmp_path) -> list[pathlib.Path]:
  """All files but the lock."""
  return [
    path
    for path in (tmp_path / 'data').rglob('*')
    if path.is_file() and path.name != '.lock'
  ]


def test_examples_are_those_of_the_files(prepare, raw_dir, images):
  source = prepare(raw_dir)
  assert source.name == 'ham10000'
  assert source.image_ids == [image.image_id for image in images]
  assert source.metadata == [image.row for image in images]
  examples = list(source)  # Ends by an IndexError.
  assert len(examples) == len(source) == len(images)
  for example, image in zip(examples, images, strict=True):
    assert example['image_id'] == image.image_id
    assert example['image'].shape == (45, 60, 3)
    # Images 1 and 2 have palettes with inverted indices.
    np.testing.assert_array_equal(example['mask'], image.lesion)


def test_bytes_are_the_originals(prepare, raw_dir, images, tmp_path):
  prepare(raw_dir)
  builder = ham10000.Ham10000(data_dir=tmp_path / 'data')
  assert builder.is_prepared()
  assert list(builder.info.splits) == ['full']
  for record, image in zip(builder.as_data_source('full'), images, strict=True):
    assert record.pop('image') == image.image
    assert record.pop('mask') == image.mask
    assert {k: v.decode() for k, v in record.items()} == image.row


def test_bytes_after_the_image_are_kept(prepare, tmp_path, images):
  images[0].image += b'\0\0'
  source = prepare(fake_ham10000.write_zips(tmp_path / 'zeros', images))
  assert source._records[0]['image'] == images[0].image


def test_layouts_give_one_data_set(prepare, raw_dir, images, tmp_path):
  built = prepare(raw_dir)
  folders = fake_ham10000.write_folders(
    tmp_path / 'kaggle', images, mask_folder='masks'
  )
  # Opened, not built: the same names, sizes and rows.
  assert prepare(folders).fingerprint == built.fingerprint
  other = ham10000.Ham10000Source.prepare(tmp_path / 'other', folders, 0)
  assert other.fingerprint == built.fingerprint
  assert [dict(record) for record in other._records] == [
    dict(record) for record in built._records
  ]


def test_more_than_one_shard_keeps_order(prepare, raw_dir, images, monkeypatch):
  monkeypatch.setattr(ham10000, '_IMAGES_PER_SHARD', 3)
  source = prepare(raw_dir)
  ids = [image.image_id for image in images]
  assert [example['image_id'] for example in source] == ids


def test_second_time_reads_no_picture(prepare, raw_dir, monkeypatch):
  built = prepare(raw_dir)
  monkeypatch.setattr(ham10000_checks, 'verify', None)
  for opened in (prepare(raw_dir), prepare(None)):
    assert opened.fingerprint == built.fingerprint
    assert opened.image_ids == built.image_ids
    assert opened.metadata == built.metadata


def test_threads_read_what_one_reads(prepare, raw_dir):
  source = prepare(raw_dir)
  expected = [source[i]['image'] for i in range(7)]
  failures = []

  def read():
    for i in [*range(7)] * 20:
      if not np.array_equal(source[i]['image'], expected[i]):
        failures.append(i)

  threads = [threading.Thread(target=read) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not failures


def test_unfit_files_leave_nothing(prepare, raw_dir, images, tmp_path):
  images[2].mask = b'no mask'
  fake_ham10000.write_zips(raw_dir, images)
  with pytest.raises(errors.InputError, match=images[2].image_id):
    prepare(raw_dir)
  assert prepared_files(tmp_path) == []


def test_interrupted_build_leaves_nothing(
  prepare, raw_dir, tmp_path, monkeypatch
):
  records = ham10000._records

  def interrupted(raw, image_ids):
    yield from list(records(raw, image_ids))[:4]
    assert list((tmp_path / 'data').rglob('*.array_record*'))
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(ham10000, '_records', interrupted)
    with pytest.raises(KeyboardInterrupt):
      prepare(raw_dir)
  assert prepared_files(tmp_path) == []
  assert len(prepare(raw_dir)) == 7


def test_killed_build_is_not_opened(raw_dir, tmp_path):
  code = f"""if True:
    import os, pathlib
    from skinseg_jax.data.sources import ham10000
    records = ham10000._records
    def killed(raw, image_ids):
      yield from list(records(raw, image_ids))[:4]
      os._exit(9)
    ham10000._records = killed
    ham10000.Ham10000Source.prepare(
        pathlib.Path({str(tmp_path / 'data')!r}),
        pathlib.Path({str(raw_dir)!r}), 0)
  """
  assert subprocess.run([sys.executable, '-c', code]).returncode == 9
  builder = ham10000.Ham10000(data_dir=tmp_path / 'data')
  assert not builder.is_prepared()
  assert list((tmp_path / 'data' / 'ham10000').glob('incomplete.*'))
  source = ham10000.Ham10000Source.prepare(tmp_path / 'data', raw_dir, 0)
  assert len(source) == 7
  # What the killed build left is gone.
  assert not list((tmp_path / 'data' / 'ham10000').glob('incomplete.*'))


def test_directory_that_is_no_data_set(prepare, raw_dir, tmp_path):
  (tmp_path / 'data' / 'ham10000' / '1.0.0').mkdir(parents=True)
  with pytest.raises(errors.InputError, match=r'1\.0\.0 .* no whole data set'):
    prepare(raw_dir)


def test_directory_that_cannot_be_written(prepare, raw_dir, tmp_path):
  (tmp_path / 'data').write_text('a file')
  with pytest.raises(errors.InputError, match=r'cannot be written.*data_dir'):
    prepare(raw_dir)


def test_lost_and_cut_records_are_noticed(prepare, raw_dir, tmp_path):
  prepare(raw_dir)
  (path,) = (tmp_path / 'data').rglob('*.array_record*')
  data = path.read_bytes()
  path.write_bytes(data[:-1])
  with pytest.raises(errors.InputError, match='is damaged'):
    prepare(raw_dir)
  path.unlink()
  with pytest.raises(errors.InputError, match='is damaged'):
    prepare()


@pytest.mark.parametrize('change', ['fewer', 'row', 'truncated'])
def test_other_raw_files_are_refused(prepare, raw_dir, images, change):
  prepare(raw_dir)
  if change == 'fewer':
    fake_ham10000.write_zips(raw_dir, images[1:])
  elif change == 'row':
    images[0].row['dx'] = 'bkl'
    fake_ham10000.write_metadata(raw_dir, images)
  else:
    path = raw_dir / 'HAM10000_images_part_1.zip'
    path.write_bytes(path.read_bytes()[:99])
  with pytest.raises(errors.InputError, match='made from other') as caught:
    prepare(raw_dir)
  assert 'data.data_dir' in str(caught.value)
  assert ('part_1.zip: not a whole zip' in str(caught.value)) == (
    change == 'truncated'
  )


def test_raw_dir_that_is_gone(prepare, raw_dir, tmp_path):
  with pytest.raises(errors.InputError, match=r'no such directory.*raw_dir'):
    prepare(tmp_path / 'nowhere')
  assert not (tmp_path / 'data').exists()
  prepare(raw_dir)
  with pytest.raises(errors.InputError, match=r'no such directory.*raw_dir'):
    prepare(tmp_path / 'nowhere')


def test_scoring_downloads_nothing(tmp_path):
  config = config_lib.DataConfig(
    source='ham10000', data_dir=str(tmp_path / 'data')
  )
  with pytest.raises(errors.InputError, match=r'no prepared.*folder that the'):
    catalog.open_source(config, download=False)
  assert not (tmp_path / 'data').exists()


def test_threshold_is_part_of_the_fingerprint(prepare, raw_dir):
  assert prepare(raw_dir, 0).fingerprint != prepare(raw_dir, 127).fingerprint


def test_grey_masks_need_their_threshold(prepare, tmp_path, images):
  grey = np.tile(np.arange(60) * 4, (45, 1))
  images[4].mask = fake_ham10000.grey_png(grey)
  raw_dir = fake_ham10000.write_zips(tmp_path / 'grey', images)
  source = prepare(raw_dir, 127)
  # 4 x > 127 from x = 32 on: 28 of 60 columns.
  assert source[4]['mask'].sum() == 28 * 45
  with pytest.raises(
    errors.InputError, match=f'mask_threshold(.|\n)*{images[4].image_id}'
  ):
    prepare(None, 0)


def test_tensorflow_is_not_needed(raw_dir, tmp_path):
  code = f"""if True:
    import pathlib, sys
    class Finder:  # Finds all modules but TensorFlow.
      def __init__(self, finder):
        self.finder = finder
      def __getattr__(self, name):
        return getattr(self.finder, name)
      def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] != 'tensorflow':
          return self.finder.find_spec(name, path, target)
    sys.meta_path[:] = map(Finder, sys.meta_path)
    from skinseg_jax.data.sources import ham10000
    for _ in range(2):  # Builds, then opens.
      source = ham10000.Ham10000Source.prepare(
          pathlib.Path({str(tmp_path / 'data')!r}),
          pathlib.Path({str(raw_dir)!r}), 0)
      assert source[6]['image'].shape == (45, 60, 3)
    assert 'tensorflow' not in sys.modules
    assert 'jax' not in sys.modules
  """
  subprocess.run([sys.executable, '-c', code], check=True)


class _Handler(http.server.SimpleHTTPRequestHandler):
  """Counts what is asked for."""

  asked: collections.Counter[str]

  def do_GET(self):
    self.asked[self.path] += 1
    super().do_GET()

  def log_message(self, *args):
    pass


@pytest.fixture
def dataverse(raw_dir, monkeypatch):
  """Serves the files of `raw_dir`; yields how often each was asked for."""
  _Handler.asked = collections.Counter()
  server = http.server.ThreadingHTTPServer(
    ('127.0.0.1', 0), functools.partial(_Handler, directory=raw_dir)
  )
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  address = f'http://127.0.0.1:{server.server_port}'
  urls = {name: f'{address}/{name}' for name in ham10000.URLS}
  infos = {
    url: checksums.compute_url_info(raw_dir / name)
    for name, url in urls.items()
  }
  monkeypatch.setenv('NO_PROXY', '127.0.0.1')
  monkeypatch.setattr(ham10000, 'URLS', urls)
  monkeypatch.setattr(ham10000.Ham10000, 'url_infos', infos)
  yield _Handler.asked
  server.shutdown()
  server.server_close()
  thread.join()


def test_download(dataverse, prepare, raw_dir, capsys, monkeypatch, tmp_path):
  source = prepare()
  assert len(source) == 7
  assert set(dataverse.values()) == {1}
  assert len(dataverse) == 4
  out = capsys.readouterr().out
  assert 'Downloading' in out
  assert 'CC BY-NC 4.0' in out
  # The files given by hand are those that were downloaded.
  assert prepare(raw_dir).fingerprint == source.fingerprint
  assert dataverse.total() == 4


def test_whole_files_are_not_fetched_again(dataverse, prepare, raw_dir):
  path = raw_dir / 'HAM10000_images_part_2.zip'
  data = path.read_bytes()
  path.write_bytes(data[:-1])
  with pytest.raises(errors.InputError) as caught:
    prepare()
  message = str(caught.value)
  assert 'HAM10000_images_part_2.zip could not be downloaded' in message
  assert 'checksum' in message
  assert hashlib.sha256(data).hexdigest() in message
  assert 'data.raw_dir' in message
  path.write_bytes(data)
  assert len(prepare()) == 7
  assert dataverse == {
    '/HAM10000_metadata.csv': 1,
    '/HAM10000_segmentations_lesion_tschandl.zip': 1,
    '/HAM10000_images_part_1.zip': 1,
    '/HAM10000_images_part_2.zip': 2,
  }


def test_failed_download_leaves_no_partial_file(
  dataverse, prepare, raw_dir, tmp_path
):
  (raw_dir / 'HAM10000_metadata.csv').unlink()
  with pytest.raises(errors.InputError, match=r'metadata\.csv could not be'):
    prepare()
  assert prepared_files(tmp_path) == []
  assert not list((tmp_path / 'data').rglob('*.tmp.*'))


def test_registered_files_are_the_urls():
  infos = ham10000.Ham10000.url_infos
  assert {name: infos[url].filename for name, url in ham10000.URLS.items()} == {
    name: name for name in ham10000.URLS
  }
  assert len(infos) == 4
  # 2.78 GB: 1,366,522,108 + 1,403,566,547 + 10,808,743 + 690,218 bytes.
  assert sum(info.size for info in infos.values()) == 2_781_587_616
  assert {len(info.checksum) for info in infos.values()} == {64}
