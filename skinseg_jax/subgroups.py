"""Scores by kind of patient, lesion and picture; and the worst images.

What a picture is like is measured from the image and its true mask; lengths
are shares of the image's shorter side, so that its size hardly matters. All
bands are fixed, so that tables of different data can be compared. Intervals
are for each group alone: of twenty groups one lies outside its own by chance.
"""

import math

import numpy as np

UNKNOWN = 'unknown'

# Columns of the metadata that become attributes, with their names.
METADATA = {
  'dx': 'dx',
  'sex': 'sex',
  'localization': 'localization',
  'dataset': 'source',
}

# Upper ends (not included) and names of bands; the last one is open.
AGE = ((30, '0-29'), (45, '30-44'), (60, '45-59'), (75, '60-74'))
AGE_ABOVE = '75+'
BANDS = {
  'lesion_area': (
    (np.nextafter(0, 1), 'no lesion'),
    (0.05, 'under 5 %'),
    (0.15, '5 to 15 %'),
    (0.35, '15 to 35 %'),
    (math.inf, '35 % and more'),
  ),
  'touches_border': ((0.5, 'no'), (math.inf, 'yes')),
  'contrast': (
    (10, 'under 10'),
    (20, '10 to 20'),
    (30, '20 to 30'),
    (math.inf, '30 and more'),
  ),
  'hair': (
    (0.01, 'under 1 %'),
    (0.05, '1 to 5 %'),
    (math.inf, '5 % and more'),
  ),
}
