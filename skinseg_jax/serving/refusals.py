"""Why a request gets no prediction."""

from collections.abc import Mapping


class RefusedError(Exception):
  """A request that is not answered; the client reads why.

  Attributes:
    status: HTTP status.
    detail: What is wrong and what to do. Never the name of a file.
    headers: Further headers of the response.
  """

  def __init__(
    self, status: int, detail: str, headers: Mapping[str, str] | None = None
  ):
    super().__init__(detail)
    self.status = status
    self.detail = detail
    self.headers = dict(headers or {})
