"""The page for people: one file, which loads nothing else."""

import base64
import hashlib

import jinja2

from skinseg_jax.serving import answers, limits, uploads

# Label and unit of what the page shows of `lesion.Measures`. Ordinary pictures
# do not state the size of a pixel, so there are no millimetres.
MEASURES = {
  'area_share': ('Area, share of the picture', '%'),
  'pieces': ('Pieces', ''),
  'touches_border': ('Touches the edge of the picture', ''),
  'area_px': ('Area', 'pixels'),
  'equivalent_diameter_px': ('Diameter of a disc of this area', 'pixels'),
  'largest_diameter_px': ('Largest diameter', 'pixels'),
  'perimeter_px': ('Perimeter', 'pixels'),
  'compactness': ('Compactness (1 for a disc)', ''),
  'eccentricity': ('Eccentricity', ''),
  'orientation': ('Orientation', '°'),
  'asymmetry_major': ('Asymmetry at the long axis', '%'),
  'asymmetry_minor': ('Asymmetry at the short axis', '%'),
  'border_abruptness': ('Change of lightness at the outline', 'L*'),
  'border_abruptness_sd': ('Its standard deviation', 'L*'),
  'white': ('Share of white', '%'),
  'red': ('Share of red', '%'),
  'light_brown': ('Share of light brown', '%'),
  'dark_brown': ('Share of dark brown', '%'),
  'blue_grey': ('Share of blue-grey', '%'),
  'black': ('Share of black', '%'),
  'lesion_lightness': ('Lesion, L*', ''),
  'lesion_a': ('Lesion, a*', ''),
  'lesion_b': ('Lesion, b*', ''),
  'skin_lightness': ('Skin, L*', ''),
  'skin_a': ('Skin, a*', ''),
  'skin_b': ('Skin, b*', ''),
  'ita': ('Typology angle of the skin', '°'),
  'ita_reason': ('Why there is no angle', ''),
}

_ENVIRONMENT = jinja2.Environment(
  loader=jinja2.PackageLoader('skinseg_jax.serving'),
  autoescape=True,
  undefined=jinja2.StrictUndefined,
  trim_blocks=True,
  lstrip_blocks=True,
)


def render(bounds: limits.Limits, *, token: bool) -> tuple[str, str]:
  """Makes the page.

  Args:
    bounds: What the page says about sizes.
    token: Whether to ask for a token.

  Returns:
    The page, and its Content-Security-Policy: its own script and style, and
    requests to its own server.
  """
  read = lambda name: _ENVIRONMENT.get_template(name).render()
  script, style = read('page.js'), read('page.css')
  html = _ENVIRONMENT.get_template('page.html').render(
    script=script,
    style=style,
    bounds=bounds,
    token=token,
    measures=MEASURES,
    notice=answers.NOTICE,
    field=uploads.FIELD,
    formats=uploads.FORMATS,
    types=','.join(uploads.TYPES),
  )
  policy = (
    f"default-src 'none'; script-src '{_digest(script)}'; style-src"
    f" '{_digest(style)}'; connect-src 'self'; img-src data: blob:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
  )
  return html, policy


def _digest(text: str) -> str:
  digest = hashlib.sha256(text.encode()).digest()
  return f'sha256-{base64.b64encode(digest).decode()}'
