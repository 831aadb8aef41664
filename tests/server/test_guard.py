"""Counters of what requests hold."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.core.errors import InputError
from atypia.server.guard import Admission, ServerLimits, usual_requests
from atypia.server.refusals import RefusalError

LIMITS = ServerLimits(
    body_bytes=100, image_pixels=10, patches=10, requests=3, buffer_bytes=200, seconds=1
)


def test_how_long_to_stay_away_follows_from_the_queue() -> None:
    admission = Admission(LIMITS, lambda: 0.4)
    with (
        admission.hold(patches=10),
        admission.hold(patches=9),
        pytest.raises(RefusalError) as refused,
        admission.hold(patches=2),
    ):
        pass
    assert refused.value.headers == {"Retry-After": "8"}  # 19 patches of 0.4 s
    assert admission.held["patches"] == 0


def test_what_is_held_comes_back_whatever_happens() -> None:
    admission = Admission(LIMITS, lambda: 0)
    for _ in range(10):
        with (
            pytest.raises(ZeroDivisionError),
            admission.hold(requests=1, upload_bytes=100),
            admission.hold(patches=20),
        ):
            raise ZeroDivisionError
    one = {"requests": 1, "upload_bytes": 100}
    with admission.hold(**one), admission.hold(**one):
        assert admission.held["requests"] == 2
        with pytest.raises(RefusalError, match="uploaded at once"), admission.hold(**one):
            pass
        assert admission.held["requests"] == 2


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 300), min_size=1, max_size=12))
def test_pixels_are_bounded_and_wait_in_order(sizes: list[int]) -> None:
    admission = Admission(LIMITS, lambda: 0)
    held, most, order = 0, 0, []

    async def one(number: int, size: int) -> None:
        nonlocal held, most
        async with admission.pixels(size):
            order.append(number)
            held += min(size, 200)
            most = max(most, held)
            await asyncio.sleep(0)
            held -= min(size, 200)

    async def all_of_them() -> None:
        await asyncio.gather(*(one(i, size) for i, size in enumerate(sizes)))

    asyncio.run(all_of_them())
    assert most <= 200
    assert order == list(range(len(sizes)))


def test_who_stops_waiting_for_pixels_lets_others_pass() -> None:
    async def story() -> None:
        admission = Admission(LIMITS, lambda: 0)
        async with admission.pixels(150):
            impatient = asyncio.ensure_future(admission.pixels(100).__aenter__())
            await asyncio.sleep(0)
            impatient.cancel()
            await asyncio.sleep(0)
            async with asyncio.timeout(1), admission.pixels(50):
                pass

    asyncio.run(story())


def test_limits_that_contradict_each_other_are_refused_together() -> None:
    with pytest.raises(InputError) as refused:
        ServerLimits(body_bytes=2**30, image_pixels=10**9)
    assert len(refused.value.problems) == 2
    assert "--max-memory-mb" in str(refused.value)


def test_beside_the_app_fewer_uploads_are_under_way_at_once():
    assert usual_requests(beside_app=True) == 24
    assert usual_requests(beside_app=False) == ServerLimits().requests == 256
