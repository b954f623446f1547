"""`Queue`: between threads, coroutines and processes; nothing is lost, nobody waits in vain."""

import asyncio
import threading

import pytest

import klieg
from klieg.exceptions import ActorDiedError, BlockingGetError
from klieg.util.queue import Empty, Full, Queue


@klieg.remote
def put(queue, item, journal=None):
    if journal is not None:
        journal.note("putting")
    queue.put(item)
    return item


@klieg.remote
def get(queue, journal=None):
    if journal is not None:
        journal.note("getting")
    return queue.get()


def waiting(queue, group):
    """How many calls wait in the actor at that end."""
    return queue.actor.stats().get(group, {"running": 0})["running"]


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def test_items_come_out_in_the_order_in_which_they_went_in():
    queue = Queue()
    for i in range(20):
        queue.put(i)
    assert [queue.get() for _ in range(20)] == list(range(20))


def test_a_queue_knows_its_size():
    queue = Queue(maxsize=2)
    assert (len(queue), queue.size(), queue.qsize(), queue.empty(), queue.full()) == (0, 0, 0, True, False)
    queue.put(1)
    assert (len(queue), queue.empty(), queue.full()) == (1, False, False)
    queue.put(2)
    assert (len(queue), queue.empty(), queue.full()) == (2, False, True)


@pytest.mark.parametrize("maxsize", [0, -1])
def test_a_queue_without_maxsize_is_never_full(maxsize):
    queue = Queue(maxsize)
    for i in range(100):
        queue.put_nowait(i)
    assert not queue.full()


def test_an_empty_queue_raises_a_plain_empty():
    queue = Queue()
    for attempt in (queue.get_nowait, lambda: queue.get(block=False), lambda: queue.get(timeout=0.01)):
        with pytest.raises(Empty) as caught:
            attempt()
        assert type(caught.value) is Empty


def test_a_full_queue_raises_a_plain_full_and_takes_nothing():
    queue = Queue(maxsize=1)
    queue.put(1)
    for attempt in (lambda: queue.put_nowait(2), lambda: queue.put(2, block=False), lambda: queue.put(2, timeout=0.01)):
        with pytest.raises(Full) as caught:
            attempt()
        assert type(caught.value) is Full
    assert queue.get() == 1
    assert queue.empty()


def test_the_async_methods_raise_empty_and_full_too():
    async def main():
        queue = Queue(maxsize=1)
        for options in ({"block": False}, {"timeout": 0.01}):
            with pytest.raises(Empty):
                await queue.get_async(**options)
        await queue.put_async(1)
        for options in ({"block": False}, {"timeout": 0.01}):
            with pytest.raises(Full):
                await queue.put_async(2, **options)
        return await queue.get_async()

    assert asyncio.run(main()) == 1


def test_a_negative_timeout_is_refused():
    queue = Queue()
    with pytest.raises(ValueError, match="timeout"):
        queue.put(1, timeout=-1)
    with pytest.raises(ValueError, match="timeout"):
        queue.get(timeout=-1)
    with pytest.raises(ValueError, match="timeout"):
        asyncio.run(queue.get_async(timeout=-1))


def test_get_waits_for_an_item(journal):
    queue = Queue()
    getting = get.remote(queue, journal)
    journal.next()
    queue.put(1)
    assert klieg.get(getting) == 1


def test_put_waits_for_room(journal):
    queue = Queue(maxsize=1)
    queue.put(1)
    putting = put.remote(queue, 2, journal)
    journal.next()
    assert queue.get() == 1
    assert klieg.get(putting) == 2
    assert queue.get() == 2


def test_those_who_wait_are_served_in_the_order_in_which_they_came():
    async def main():
        queue = Queue(maxsize=1)
        getters = []
        for i in range(3):
            getters.append(asyncio.ensure_future(queue.get_async()))
            await until(lambda count=i + 1: waiting(queue, "get") == count)
        for i in range(3):
            await queue.put_async(i)
        taken = await asyncio.gather(*getters)
        putters = []
        await queue.put_async("first")
        for i in range(3):
            putters.append(asyncio.ensure_future(queue.put_async(i)))
            await until(lambda count=i + 1: waiting(queue, "put") == count)
        return taken, [await queue.get_async() for _ in range(4)], await asyncio.gather(*putters)

    assert asyncio.run(main()) == ([0, 1, 2], ["first", 0, 1, 2], [None] * 3)


def test_more_blocked_putters_than_any_limit_do_not_keep_getters_out():
    async def main():
        queue = Queue(maxsize=1)
        putters = [asyncio.ensure_future(queue.put_async(i)) for i in range(1500)]
        taken = [await queue.get_async(timeout=10) for _ in range(1500)]
        await asyncio.gather(*putters)
        return taken

    assert asyncio.run(main()) == list(range(1500))


def test_more_blocked_getters_than_any_limit_do_not_keep_putters_out():
    async def main():
        queue = Queue()
        getters = [asyncio.ensure_future(queue.get_async()) for _ in range(1500)]
        for i in range(1500):
            await queue.put_async(i, timeout=10)
        return await asyncio.gather(*getters)

    assert asyncio.run(main()) == list(range(1500))


def test_a_batch_goes_in_whole_or_not_at_all():
    queue = Queue(maxsize=3)
    queue.put_nowait_batch(iter([1, 2]))
    with pytest.raises(Full, match="room for 1"):
        queue.put_nowait_batch([3, 4])
    assert queue.get_nowait_batch(2) == [1, 2]
    assert queue.empty()


def test_a_batch_comes_out_whole_or_not_at_all():
    queue = Queue()
    queue.put_nowait_batch([1, 2])
    with pytest.raises(Empty, match="Cannot get 3"):
        queue.get_nowait_batch(3)
    assert queue.get_nowait_batch(0) == []
    assert queue.get_nowait_batch(2) == [1, 2]


def test_a_batch_must_be_a_batch():
    queue = Queue()
    with pytest.raises(TypeError):
        queue.put_nowait_batch(1)
    with pytest.raises(TypeError):
        queue.get_nowait_batch(1.0)
    with pytest.raises(ValueError, match="num_items"):
        queue.get_nowait_batch(-1)


def test_getting_makes_room_for_those_who_wait():
    async def main():
        queue = Queue(maxsize=2)
        await queue.put_async(0)
        await queue.put_async(1)
        putters = [asyncio.ensure_future(queue.put_async(i)) for i in (2, 3)]
        await until(lambda: waiting(queue, "put") == 2)
        batch = queue.get_nowait_batch(2)
        await asyncio.gather(*putters)
        return batch, queue.get_nowait_batch(2)

    assert asyncio.run(main()) == ([0, 1], [2, 3])


def test_none_and_false_are_items_like_others():
    queue = Queue()
    for item in (None, False, 0, ""):
        queue.put(item)
    assert [queue.get_nowait() for _ in range(4)] == [None, False, 0, ""]


def test_a_cancelled_getter_takes_no_item():
    async def main():
        queue = Queue()
        getter = asyncio.ensure_future(queue.get_async())
        await until(lambda: waiting(queue, "get") == 1)
        getter.cancel()
        await asyncio.wait([getter])
        await queue.put_async(1)
        return await queue.get_async(timeout=10)

    assert asyncio.run(main()) == 1


def test_getters_that_are_cancelled_while_items_come_lose_none():
    async def main():
        queue, taken = Queue(), []

        async def impatient():
            taken.append(await queue.get_async())

        for round in range(200):
            getter = asyncio.ensure_future(impatient())
            await queue.put_async(round)
            for _ in range(round % 5):
                await asyncio.sleep(0)
            getter.cancel()
            await asyncio.wait([getter])
        while len(taken) < 200:
            taken.append(await queue.get_async(timeout=10))
        return taken

    assert sorted(asyncio.run(main())) == list(range(200))


def test_getters_that_time_out_in_wait_for_lose_nothing():
    async def main():
        queue, taken = Queue(), []
        putter = asyncio.ensure_future(asyncio.gather(*(queue.put_async(i) for i in range(50))))
        for attempt in range(200):
            try:
                taken.append(await asyncio.wait_for(queue.get_async(), attempt % 10 / 5000))
            except TimeoutError:
                continue
        await putter
        while len(taken) < 50:
            taken.append(await queue.get_async(timeout=10))
        return taken

    assert sorted(asyncio.run(main())) == list(range(50))


def test_a_cancelled_task_that_waits_to_get_takes_no_item():
    queue = Queue()
    getting = get.remote(queue)
    asyncio.run(until(lambda: waiting(queue, "get") == 1))
    klieg.cancel(getting)
    with pytest.raises(klieg.exceptions.TaskCancelledError):
        klieg.get(getting)
    queue.put(1)
    assert queue.get(timeout=10) == 1


@pytest.mark.not_on_ray("Ray tells no actor that one of its callers has died")
@pytest.mark.needs_process("the consumer is killed")
def test_a_consumer_that_dies_while_it_waits_takes_no_item(journal):
    @klieg.remote
    class Consumer:
        def get(self, queue):
            journal.note("getting")
            return queue.get()

    queue, consumer = Queue(), Consumer.remote()
    getting = consumer.get.remote(queue)
    journal.next()
    asyncio.run(until(lambda: waiting(queue, "get") == 1))
    klieg.kill(consumer)
    with pytest.raises(ActorDiedError):
        klieg.get(getting)
    asyncio.run(until(lambda: waiting(queue, "get") == 0))
    queue.put(1)
    assert queue.get(timeout=10) == 1


def test_an_item_whose_call_was_cancelled_at_the_last_moment_goes_back():
    from klieg.util.queue import QueueActor

    actor = QueueActor(0)
    for i in range(3):
        actor.put_nowait(i)
    handed = actor.get_nowait()
    del handed  # as the concurrency core does with the value of a cancelled call
    assert actor.get_batch(3).items == [0, 1, 2]


def test_many_producers_and_consumers_exchange_everything_once():
    queue = Queue(maxsize=3)
    producing = [put.remote(queue, i) for i in range(40)]
    taken, threads = [], []
    for _ in range(4):
        threads.append(threading.Thread(target=lambda: taken.extend(queue.get() for _ in range(10))))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(40))
    assert klieg.get(producing) == list(range(40))


def test_the_blocking_methods_are_refused_on_an_async_actors_loop_and_lose_nothing():
    @klieg.remote
    class Worker:
        async def block(self, queue):
            return queue.get()

        async def wait(self, queue):
            return await queue.get_async()

    queue, worker = Queue(), Worker.remote()
    queue.put(1)
    with pytest.raises(BlockingGetError):
        klieg.get(worker.block.remote(queue))
    assert klieg.get(worker.wait.remote(queue)) == 1


def test_the_actors_options_are_the_users():
    queue = Queue(actor_options={"name": "jobs", "max_concurrency": 3})
    queue.put(1)
    assert klieg.get(klieg.get_actor("jobs").size.remote()) == 1


def test_a_copy_keeps_the_queue_alive():
    @klieg.remote
    class Keeper:
        def __init__(self, queue):
            self.queue = queue

        def get(self):
            return self.queue.get(timeout=10)

    queue = Queue()
    keeper = Keeper.remote(queue)
    klieg.get(keeper.__ray_ready__.remote())
    queue.put(1)
    del queue
    assert klieg.get(keeper.get.remote()) == 1


@pytest.mark.parametrize("force", [False, True])
def test_a_queue_that_was_shut_down_tells_everybody(force, journal):
    queue = Queue(maxsize=1)
    getting = get.remote(queue, journal)
    journal.next()
    queue.shutdown(force=force)
    with pytest.raises(ActorDiedError):
        klieg.get(getting)
    with pytest.raises(ActorDiedError):
        queue.put(1)
    with pytest.raises(ActorDiedError):
        queue.get(timeout=1)
    queue.shutdown()
