"""Protects csv cells from being read as formulas by a spreadsheet.

https://owasp.org/www-community/attacks/CSV_Injection
"""

# A formula starts with one of these; a guarded cell with an apostrophe.
_FORMULA = tuple('=+-@\t\r')
_GUARDED = (*_FORMULA, "'")


def guard(cell: str) -> str:
  """Puts ' before a cell that a spreadsheet would read as a formula.

  Numbers stay unchanged, even with a sign.
  """
  if not cell.startswith(_GUARDED):
    return cell
  try:
    float(cell)
  except ValueError:
    return "'" + cell
  return cell


def bare(cell: str) -> str:
  """Inverts `guard`."""
  guarded = cell.startswith("'") and cell[1:].startswith(_GUARDED)
  return cell[1:] if guarded else cell
