"""One at a time, on one event loop after another."""

import asyncio

from pratipad_nb.session.turn import Turn


async def most_at_once(turn, users=3):
    inside, most = 0, 0

    async def use():
        nonlocal inside, most
        async with turn.here():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(use() for _ in range(users)))
    return most


def test_it_is_had_by_one_at_a_time_on_every_event_loop_that_it_is_used_on():
    turn = Turn()
    assert [asyncio.run(most_at_once(turn)) for _ in range(2)] == [1, 1]


def test_who_held_it_when_his_event_loop_was_left_holds_up_nobody_on_the_next():
    turn = Turn()
    left = asyncio.new_event_loop()

    async def hold():
        await turn.here().acquire()

    left.run_until_complete(hold())
    assert asyncio.run(asyncio.wait_for(most_at_once(turn), 5)) == 1
    left.close()
