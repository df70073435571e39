"""Who is admitted when memory is short."""

import asyncio

import pytest

pytest.importorskip('fastapi')

from skinseg_jax.serving import limits, refusals


def test_small_pictures_do_not_overtake_a_large_one():
  order = []

  async def picture(admission, name, pixels, ends=None):
    async with admission.pixels(pixels):
      order.append(name)
      if ends:
        await ends.wait()

  async def run():
    admission = limits.Admission(limits.Limits(pixels=10, pixels_at_once=10))
    ends = asyncio.Event()
    tasks = []
    for name, pixels, end in (
      ('first', 5, ends), ('large', 10, None), ('small', 5, None)
    ):  # fmt: skip
      tasks.append(asyncio.create_task(picture(admission, name, pixels, end)))
      for _ in range(10):
        await asyncio.sleep(0)
    assert order == ['first']  # The small one would fit, but waits.
    ends.set()
    await asyncio.gather(*tasks)

  asyncio.run(run())
  assert order == ['first', 'large', 'small']


def test_who_waits_too_long_is_turned_away_and_blocks_nobody():
  async def run():
    bounds = limits.Limits(pixels=10, pixels_at_once=10, wait_seconds=0.05)
    admission = limits.Admission(bounds)
    async with admission.pixels(5):
      with pytest.raises(refusals.RefusedError, match='busy') as refused:
        async with admission.pixels(10):
          pass
      async with admission.pixels(5):
        pass
    async with admission.pixels(10):
      return refused.value

  error = asyncio.run(run())
  assert error.status == 503
  assert int(error.headers['Retry-After']) > 0
