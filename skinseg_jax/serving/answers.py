"""What the server answers, as its OpenAPI description shows it."""

import base64
import io

import numpy as np
import pydantic
from PIL import Image

from skinseg_jax.inference import predictor, trained_model
from skinseg_jax.measures import lesion
from skinseg_jax.viewer import shared_page


class Model(pydantic.BaseModel):
  """Which model predicts."""

  name: str = pydantic.Field(description='name of its folder')
  architecture: str
  step: int = pydantic.Field(description='number of training steps')
  digest: str = pydantic.Field(
    description='SHA-256 of the network and its weights'
  )


class Health(pydantic.BaseModel):
  """The server is ready."""

  status: str
  model: Model


class Problem(pydantic.BaseModel):
  """Why a request was refused."""

  detail: str


class Answer(pydantic.BaseModel):
  """A prediction for one picture."""

  width: int = pydantic.Field(description='of the upright picture, in pixels')
  height: int
  threshold: float = pydantic.Field(
    description='probability above which a pixel is lesion'
  )
  mask: str = pydantic.Field(
    description='PNG of the size of the picture in base64: 255 for lesion, 0'
    ' for skin'
  )
  probability: str | None = pydantic.Field(
    description='PNG of the size of the picture in base64: 255 times the'
    ' probability of lesion; null unless asked for'
  )
  measures: lesion.Measures = pydantic.Field(
    description='measures of the lesion; null where there is no value'
  )
  needs_review: bool = pydantic.Field(
    description='whether a person should look at the mask'
  )
  reasons: list[str] = pydantic.Field(
    description='why a person should look at the mask; empty for no reason'
  )
  expected_dice: float | None = pydantic.Field(
    description='the Dice to expect of the mask, 0 to 1; null if the model has'
    ' no calibration'
  )
  model: Model
  notice: str


def describe(model: trained_model.TrainedModel, name: str) -> Model:
  """Says which model it is.

  Args:
    model: The model.
    name: Name of its folder, without the path.
  """
  return Model(
    name=name,
    architecture=model.config.model.architecture,
    step=model.step,
    digest=model.fingerprint(),
  )


def answer(
  prediction: predictor.Prediction,
  *,
  threshold: float,
  model: Model,
  probability: bool,
) -> bytes:
  """Encodes a prediction as the JSON of an `Answer`.

  Args:
    prediction: What the model says.
    threshold: That of its mask.
    model: What predicted.
    probability: Whether to send the probability.
  """
  height, width = prediction.mask.shape
  found = Answer(
    width=width,
    height=height,
    threshold=threshold,
    mask=_png(prediction.mask.astype(np.uint8) * 255),
    probability=_png(np.rint(prediction.probability * 255).astype(np.uint8))
    if probability
    else None,
    measures=prediction.measures(),
    needs_review=prediction.needs_review,
    reasons=list(prediction.reasons),
    expected_dice=prediction.expected_dice,
    model=model,
    notice=shared_page.NOTICE,
  )
  return found.model_dump_json().encode()


def _png(pixels: np.ndarray) -> str:
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'PNG', compress_level=1)
  return base64.b64encode(file.getvalue()).decode()
