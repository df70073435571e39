"""GrabCut, refined by K-means, in the manner of Jaisakthi and others."""

import cv2
import numpy as np

from skinseg_jax.classical import corrections, otsu, parameters, regions

_EITHER = cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT


def segment(image: np.ndarray, settings: parameters.GrabCut) -> np.ndarray:
  """Finds a lesion with GrabCut; K-means then moves its outline.

  In the manner of Jaisakthi, Mirunalini and Aravindan (2018, IET Computer
  Vision): hair and illumination are corrected, GrabCut finds the foreground and
  K-means refines its boundary. Their parameters could not be read, and neither
  could how they start GrabCut: here Otsu's threshold does.

  Args:
    image: RGB, uint8 [H, W, 3].
    settings: Its parameters.

  Returns:
    bool [H, W].
  """
  corrected = corrections.correct(image, settings.seed.corrections)
  rough = otsu.beyond(corrected, settings.seed)
  seed = regions.clean(rough, settings.seed.clean_up)
  found = _cut(corrected, seed, settings)
  found = _refined(corrected, found, settings)
  return regions.clean(found, settings.clean_up)


def _cut(
  corrected: corrections.Corrected,
  seed: np.ndarray,
  settings: parameters.GrabCut,
) -> np.ndarray:
  """GrabCut (Rother et al., 2004) from a probable lesion."""
  labels = np.where(seed, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
  labels[~corrected.valid] = cv2.GC_BGD
  margin = max(1, round(settings.margin * min(seed.shape)))
  inside = np.zeros(seed.shape, bool)
  inside[margin:-margin, margin:-margin] = True
  labels[~inside] = cv2.GC_BGD
  # GrabCut fits five colours to each side.
  if min((labels == cv2.GC_PR_FGD).sum(), (~seed).sum()) < 5:
    return seed
  cv2.setRNGSeed(settings.random_seed)
  cv2.grabCut(
    corrected.image,
    labels,
    (0, 0, 0, 0),  # Not used: the labels say where to start.
    np.zeros((1, 65)),
    np.zeros((1, 65)),
    settings.rounds,
    cv2.GC_INIT_WITH_MASK,
  )
  return (labels == cv2.GC_PR_FGD) | (labels == cv2.GC_FGD)


def _refined(
  corrected: corrections.Corrected,
  mask: np.ndarray,
  settings: parameters.GrabCut,
) -> np.ndarray:
  """Decides by two mean colours in Lab in a band around the outline."""
  width = regions.disc(settings.band, min(mask.shape))
  outer = (cv2.dilate(mask.astype(np.uint8), width) > 0) & corrected.valid
  inner = cv2.erode(mask.astype(np.uint8), width) > 0
  band = outer & ~inner
  if settings.band <= 0 or band.sum() < 2:
    return mask
  lab = cv2.cvtColor(corrected.image, cv2.COLOR_RGB2LAB)
  cv2.setRNGSeed(settings.random_seed)
  _, labels, centres = cv2.kmeans(
    lab[band].astype(np.float32),
    2,
    np.zeros((int(band.sum()), 1), np.int32),  # To be filled.
    (_EITHER, settings.kmeans_rounds, settings.kmeans_change),
    settings.kmeans_starts,
    cv2.KMEANS_PP_CENTERS,
  )
  dark = centres[:, 0].argmin()
  refined = inner.copy()
  refined[band] = labels[:, 0] == dark
  return refined
