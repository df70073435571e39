"""Predicts the mask of a picture with the model in this folder.

python example.py PICTURE MASK

Writes the mask as a PNG of the picture's size, 255 for lesion and 0 for skin.
Needs numpy, pillow and the runtime of the model: onnxruntime for a file
model.onnx, jax for model.stablehlo, ai-edge-litert for model.tflite, tensorflow
for saved_model.pb. Research software, not a medical device.
"""

import hashlib
import json
import pathlib
import sys

import numpy as np
from PIL import Image, ImageOps

_FOLDER = pathlib.Path(__file__).parent


def load():
  """Returns the description, and a function of pictures [batch, H, W, 3]."""
  about = json.loads((_FOLDER / 'model.json').read_text(encoding='utf-8'))
  data = (_FOLDER / about['file']).read_bytes()
  if hashlib.sha256(data).hexdigest() != about['sha256']:
    sys.exit(
      f'error: {about["file"]} is not the file that model.json describes: its'
      ' SHA-256 differs. Get the folder again.'
    )
  if about['format'] == 'onnx':
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Sums of int8 products overflow on older x86 processors without it.
    options.add_session_config_entry('session.x64quantprecision', '1')
    session = onnxruntime.InferenceSession(
      data, options, providers=['CPUExecutionProvider']
    )
    return about, lambda images: session.run(None, {'image': images})[0]
  if about['format'] == 'tflite':
    from ai_edge_litert import interpreter

    loaded = interpreter.Interpreter(model_content=data)
    run = loaded.get_signature_runner(about['signature'])
    return about, lambda images: run(image=images)['probability']
  if about['format'] == 'savedmodel':
    import tensorflow

    model = tensorflow.saved_model.load(str(_FOLDER))

    def predict(images):
      found = model.signatures[about['signature']](
        image=tensorflow.constant(images)
      )
      return found['probability'].numpy()

    return about, predict
  import jax.export

  call = jax.export.deserialize(bytearray(data)).call
  return about, lambda images: np.asarray(call(images))


def read_picture(path):
  """Upright, uint8 [H, W, 3]."""
  image = ImageOps.exif_transpose(Image.open(path))
  if image.mode in ('I', 'F'):
    sys.exit(
      f'error: {path} has 32 bits a pixel. Save it with 8 bits a channel.'
    )
  if image.mode.startswith('I;16'):  # Pillow would cut values off at 255.
    grey = (np.asarray(image).astype(np.uint32) + 128) // 257
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
  return np.asarray(image.convert('RGB'))


def neighbours(source, target, precision):
  """Both neighbours of each target pixel, and the share of the second."""
  place = (np.arange(target) + 0.5) * (1 / (target / source)) - 0.5
  place = place.astype(precision)
  first = np.floor(place)
  share = (place - first).astype(np.float32)
  first = first.astype(int)
  limit = lambda index: index.clip(0, source - 1)
  return limit(first), limit(first + 1), share


def resize_image(image, height, width):
  """OpenCV's INTER_LINEAR for uint8 [H, W, 3]: weights have 11 bits."""
  if image.shape[:2] == (height, width):
    return image
  weigh = lambda share: np.rint(share * np.float32(2048)).astype(np.int32)
  left, right, share = neighbours(image.shape[1], width, np.float32)
  first, second = weigh(1 - share)[:, None], weigh(share)[:, None]
  across = (image[:, left] * first + image[:, right] * second) >> 4
  top, bottom, share = neighbours(image.shape[0], height, np.float32)
  first, second = (w[:, None, None] for w in (weigh(1 - share), weigh(share)))
  upper, lower = across[top] * first >> 16, across[bottom] * second >> 16
  return ((upper + lower + 2) >> 2).astype(np.uint8)


def resize_probability(probability, height, width):
  """The same rule for float32 [H, W]."""
  left, right, share = neighbours(probability.shape[1], width, np.float64)
  across = probability[:, left]
  across = across + (probability[:, right] - across) * share
  top, bottom, share = neighbours(probability.shape[0], height, np.float64)
  return across[top] + (across[bottom] - across[top]) * share[:, None]


def main(picture, mask):
  """Reads a picture, writes its mask."""
  about, predict = load()
  _, height, width, _ = about['input']['shape']
  pixels = read_picture(picture)
  small = resize_image(pixels, height, width)
  probability = resize_probability(predict(small[None])[0], *pixels.shape[:2])
  lesion = probability > about['threshold']
  Image.fromarray(lesion.astype(np.uint8) * 255).save(mask)
  print(f'{mask}: {lesion.mean():.1%} of the picture is lesion')


if __name__ == '__main__':
  if len(sys.argv) != 3:
    sys.exit(__doc__)
  main(*sys.argv[1:])
