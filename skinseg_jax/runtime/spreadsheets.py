"""Cells of csv files that a spreadsheet must not take for formulas.

https://owasp.org/www-community/attacks/CSV_Injection
"""

# With these a formula begins; the apostrophe is how a guarded cell does.
_FORMULA = tuple('=+-@\t\r')
_GUARDED = (*_FORMULA, "'")


def guard(cell: str) -> str:
  """Puts ' before a cell that a spreadsheet would take for a formula.

  Numbers stay as they are, with a sign, too.
  """
  if not cell.startswith(_GUARDED):
    return cell
  try:
    float(cell)
  except ValueError:
    return "'" + cell
  return cell


def bare(cell: str) -> str:
  """The inverse of `guard`."""
  guarded = cell.startswith("'") and cell[1:].startswith(_GUARDED)
  return cell[1:] if guarded else cell
