"""The page for people: one file, which loads nothing else."""

from skinseg_jax.serving import limits, uploads
from skinseg_jax.viewer import shared_page

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

_TEMPLATES = shared_page.environment('skinseg_jax.serving')


def render(bounds: limits.Limits, *, token: bool) -> tuple[str, str]:
  """Makes the page.

  Args:
    bounds: What the page says about sizes.
    token: Whether to ask for a token.

  Returns:
    The page, and its Content-Security-Policy: its own script and style, and
    requests to its own server.
  """
  shared = shared_page.parts(_TEMPLATES, 'png.js', 'serve.js')
  html = _TEMPLATES.get_template('serve.html').render(
    bounds=bounds,
    token=token,
    measures=MEASURES,
    field=uploads.FIELD,
    formats=uploads.FORMATS,
    types=','.join(uploads.TYPES),
    **shared,
  )
  script, style = (shared_page.source(shared[n]) for n in ('script', 'style'))
  policy = (
    f"default-src 'none'; script-src {script}; style-src {style};"
    " connect-src 'self'; img-src data: blob:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
  )
  return html, policy
