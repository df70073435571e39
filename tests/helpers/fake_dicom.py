"""DICOM files made of arrays."""

import io

import numpy as np
import pytest


def dicom(values: np.ndarray, photometric: str, **tags) -> bytes:
  """A secondary capture, or with tags another kind; uncompressed."""
  pydicom = pytest.importorskip('pydicom')
  meta = pydicom.dataset.FileMetaDataset()
  meta.MediaStorageSOPClassUID = '1.2.840.10008.5.1.4.1.1.7'
  meta.MediaStorageSOPInstanceUID = '1.2.3'
  meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
  file = pydicom.Dataset()
  file.file_meta = meta
  file.SOPClassUID, file.SOPInstanceUID = '1.2.840.10008.5.1.4.1.1.7', '1.2.3'
  frames = tags.pop('frames', 1)
  if frames > 1:
    file.NumberOfFrames = frames
  file.Rows, file.Columns = values.shape[-3:-1] if values.shape[-1] == 3 else (
    values.shape[-2:]
  )  # fmt: skip
  file.SamplesPerPixel = 3 if values.shape[-1] == 3 else 1
  if file.SamplesPerPixel == 3:
    file.PlanarConfiguration = 0
  file.PhotometricInterpretation = photometric
  file.BitsAllocated = values.dtype.itemsize * 8
  file.BitsStored = tags.pop('bits', file.BitsAllocated)
  file.HighBit = file.BitsStored - 1
  file.PixelRepresentation = int(values.dtype.kind == 'i')
  for name, value in tags.items():
    setattr(file, name, value)
  file.PixelData = values.tobytes()
  buffer = io.BytesIO()
  file.save_as(buffer, enforce_file_format=True)
  return buffer.getvalue()
