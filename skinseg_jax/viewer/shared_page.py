"""What the pages share that show a picture with the outline of its lesion.

`templates/viewer.html` is extended by each page, and `viewer.js` says what a
page's own script has to define. `upright.js` and `png.js` also run in workers.
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


def parts(templates: jinja2.Environment, *scripts: str) -> dict[str, str]:
  """What `viewer.html` needs: notice, script and style.

  Args:
    templates: From `environment`.
    scripts: Templates of the page's own scripts, which follow those that every
      page needs.
  """
  return {
    'notice': NOTICE,
    'script': joined(templates, 'viewer.js', 'upright.js', *scripts),
    'style': joined(templates, 'viewer.css'),
  }


def joined(templates: jinja2.Environment, *names: str) -> str:
  """Templates without variables, one after the other."""
  return '\n'.join(templates.get_template(name).render() for name in names)


def source(text: str) -> str:
  """How a Content-Security-Policy names a script or style inside a page."""
  digest = hashlib.sha256(text.encode()).digest()
  return f"'sha256-{base64.b64encode(digest).decode()}'"
