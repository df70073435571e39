"""What the pages share that show a picture with the outline of its lesion.

`templates/viewer.html` is extended by each page, and `viewer.js` says what a
page's own script has to define.
"""

import base64
import hashlib

import jinja2

NOTICE = (
  'Research software, not a medical device: do not use it to decide about a'
  ' patient.'
)


def environment(package: str) -> jinja2.Environment:
  """Templates of a package, which may extend and include those of this room.

  Args:
    package: Name of a package with a folder `templates`.
  """
  return jinja2.Environment(
    loader=jinja2.ChoiceLoader(
      [jinja2.PackageLoader(p) for p in (package, 'skinseg_jax.viewer')]
    ),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )


def parts(templates: jinja2.Environment, script: str) -> dict[str, str]:
  """What `viewer.html` needs: notice, script and style.

  Args:
    templates: From `environment`.
    script: Template of the page's own script.
  """
  read = lambda name: templates.get_template(name).render()
  return {
    'notice': NOTICE,
    'script': f'{read("viewer.js")}\n{read(script)}',
    'style': read('viewer.css'),
  }


def source(text: str) -> str:
  """How a Content-Security-Policy names a script or style inside a page."""
  digest = hashlib.sha256(text.encode()).digest()
  return f"'sha256-{base64.b64encode(digest).decode()}'"
