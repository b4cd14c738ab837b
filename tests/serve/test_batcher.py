"""Batches are made of what waits while the network works."""

import asyncio
import threading

import pytest

from p2p.serve.batcher import Batcher


class Network:
    """Doubles numbers. The first batch waits until it is told to go on, so that the others have to wait."""

    def __init__(self, bad=()):
        self.go_on, self.batches, self.threads, self.bad = threading.Event(), [], set(), bad

    def __call__(self, images, kind):
        assert self.go_on.wait(30)
        self.batches.append((list(images), kind))
        self.threads.add(threading.get_ident())
        if bad := [image for image in images if image in self.bad]:
            raise RuntimeError(f"cannot do {bad}")
        return [2 * image for image in images]


def run(network, ask, **options):
    async def main():
        batcher = Batcher(network, **{"max_batch": 4, "max_wait_s": 0.0} | options)
        work = asyncio.create_task(batcher.run())
        try:
            return await asyncio.wait_for(ask(batcher), 30)
        finally:
            network.go_on.set()
            work.cancel()

    return asyncio.run(main())


async def started(batcher, *items):
    """A task for each (image, kind), after the first has gone to the network and the others wait."""
    tasks = [asyncio.create_task(batcher(*items[0]))]
    while len(batcher) or not batcher._thread._work_queue.empty():
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    tasks += [asyncio.create_task(batcher(*item)) for item in items[1:]]
    while len(batcher) < len(items) - 1:
        await asyncio.sleep(0)
    return tasks


def test_what_waits_is_one_batch_and_kinds_are_apart():
    network = Network()

    async def ask(batcher):
        tasks = await started(batcher, *((number, "a" if number != 3 else "b") for number in range(8)))
        network.go_on.set()
        return await asyncio.gather(*tasks)

    done = run(network, ask)
    assert [each.output for each in done] == [0, 2, 4, 6, 8, 10, 12, 14]
    assert network.batches == [([0], "a"), ([1, 2, 4, 5], "a"), ([3], "b"), ([6, 7], "a")]
    assert [each.batch for each in done] == [1, 4, 4, 1, 4, 4, 2, 2]
    assert len(network.threads) == 1


def test_an_image_that_fails_does_not_fail_the_others():
    network = Network(bad=(2,))

    async def ask(batcher):
        tasks = await started(batcher, *((number, "a") for number in range(4)))
        network.go_on.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    *_, second, third = done = run(network, ask)
    assert isinstance(second, RuntimeError) and str(second) == "cannot do [2]"
    assert [done[0].output, done[1].output, third.output] == [0, 2, 6]


def test_a_task_that_is_cancelled_leaves_the_queue():
    network = Network()

    async def ask(batcher):
        tasks = await started(batcher, *((number, "a") for number in range(3)))
        tasks[1].cancel()
        tasks[0].cancel()  # whose image is in the network
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        assert len(batcher) == 1
        network.go_on.set()
        return await tasks[2]

    assert run(network, ask).output == 4
    assert network.batches == [([0], "a"), ([2], "a")]


def test_an_idle_network_waits_for_a_batch_to_fill():
    network = Network()
    network.go_on.set()

    async def ask(batcher):
        return await asyncio.gather(*(batcher(number, "a") for number in range(4)))

    assert [each.batch for each in run(network, ask, max_wait_s=25.0)] == [4, 4, 4, 4]  # full: it waits no longer
    network.batches.clear()

    async def late(batcher):
        first = asyncio.create_task(batcher(0, "a"))
        await asyncio.sleep(0.01)
        return await asyncio.gather(first, *(batcher(number, "a") for number in (1, 2, 3)))

    run(network, late, max_wait_s=25.0)
    assert network.batches == [([0, 1, 2, 3], "a")]
