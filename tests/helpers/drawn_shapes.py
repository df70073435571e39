"""Masks of shapes with known measures, at any angle, place and scale."""

import numpy as np

SIZE = 400
CENTRE = (190.3, 205.8)


def frame(degrees=0.0, size=SIZE, centre=CENTRE):
  """Coordinates along and across a direction, counter-clockwise as seen."""
  y, x = np.mgrid[:size, :size]
  y, x = centre[0] - y, x - centre[1]
  cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
  return x * cos + y * sin, y * cos - x * sin


def disc(radius, **place):
  return np.hypot(*frame(**place)) < radius


def ellipse(a, b, degrees=0.0, **place):
  along, across = frame(degrees, **place)
  return (along / a) ** 2 + (across / b) ** 2 < 1


def rectangle(a, b, degrees=0.0, **place):
  """Sides of 2 a and 2 b."""
  along, across = frame(degrees, **place)
  return (abs(along) < a) & (abs(across) < b)


def half_disc(radius, degrees=0.0, **place):
  """The part above its diameter, which has the angle `degrees`."""
  along, across = frame(degrees, **place)
  return (np.hypot(along, across) < radius) & (across > 0)


def ring(outer, inner, **place):
  return disc(outer, **place) & ~disc(inner, **place)


def picture(mask, lesion=(120, 70, 40), skin=(220, 170, 150)):
  return np.where(mask[..., None], np.uint8(lesion), np.uint8(skin))
