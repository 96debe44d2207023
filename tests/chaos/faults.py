"""What is done to the service: processes killed and stopped, Redis too, and the network between.

Each fault waits for a commit to be on its way, happens then, and is over before the next one of its
lane: one lane for the replicas, one for the store.
"""

import asyncio
import random
import signal
from contextlib import suppress

_DRAIN_LIMIT_S = 15.0
"""A replica that was asked to end has ended by then: its drain is limited to 5 s."""

_MOMENTS = ("arriving", "sent", "elsewhere")
"""A commit has left its replica, and can still be held or outlive it; it is at Redis, and its
answer is on the way; another replica's commit is there, and this one does whatever it does."""


class Faults:
    """A schedule of faults.

    Attributes:
        problems: What went wrong with the service besides its answers.
    """

    def __init__(self, cluster, desk, seed, gap_s):
        """Prepare a schedule.

        Args:
            cluster: What is tested.
            desk: Where the requests are in flight.
            seed: Of the order, the targets and the times.
            gap_s: Between two faults of a lane, on average.
        """
        self.problems = []
        self._cluster = cluster
        self._desk = desk
        self._random = random.Random(seed)
        self._gap_s = gap_s

    async def run(self):
        """Do one fault after the other until the end."""
        replica_faults = [self.kill_replica]
        if not self._cluster.links:
            await self._run_lane(replica_faults)
            return
        replica_faults += [self.stop_replica, self.end_replica]
        store_faults = [
            self.cut_one_link,
            self.cut_all_links,
            self.delay_commits,
            self.lose_answers,
            self.stop_redis,
            self.pause_redis,
            self.restart_redis,
            self.kill_redis,
        ]
        lanes = [replica_faults, store_faults]
        await asyncio.gather(*(self._run_lane(faults) for faults in lanes))

    async def _run_lane(self, faults):
        while True:
            # Each kind comes once before any comes again.
            for fault in self._random.sample(faults, len(faults)):
                await asyncio.sleep(self._gap_s * self._random.uniform(0.5, 1.5))
                if self._desk.is_ending:
                    return
                await fault()

    async def kill_replica(self):
        """SIGKILL while it commits, and a new start."""
        number, replica = self._choose_replica()
        strike = lambda: replica.send(signal.SIGKILL)  # noqa: E731
        await self._strike("kill -9", number, strike, self._random.choice(_MOMENTS))
        await replica.wait(_DRAIN_LIMIT_S)
        await asyncio.sleep(self._random.uniform(0, 1))
        replica.start()
        await self._until_ready(replica)

    async def stop_replica(self):
        """SIGSTOP for a while, so that others go on with its sessions."""
        number, replica = self._choose_replica()
        strike = lambda: replica.send(signal.SIGSTOP)  # noqa: E731
        await self._strike("SIGSTOP", number, strike, self._random.choice(_MOMENTS))
        await asyncio.sleep(self._random.uniform(0.5, 4))
        replica.send(signal.SIGCONT)

    async def end_replica(self):
        """SIGTERM, its drain, and a new start."""
        number, replica = self._choose_replica()
        await self._strike("SIGTERM", number, lambda: replica.send(signal.SIGTERM))
        try:
            await replica.wait(_DRAIN_LIMIT_S)
        except TimeoutError:
            self.problems.append(f"{replica.name} did not end within {_DRAIN_LIMIT_S:g} s")
            replica.end()
        replica.start()
        await self._until_ready(replica)

    async def cut_one_link(self):
        """One replica's connections to Redis end, and no new ones come."""
        number = self._choose_link()
        await self._cut("link cut", [number])

    async def cut_all_links(self):
        """No replica reaches Redis."""
        await self._cut("all links cut", range(len(self._cluster.links)))

    async def delay_commits(self):
        """A replica's commits arrive at Redis when their clients have gone elsewhere."""
        number = self._choose_link()
        link = self._cluster.links[number]
        await self._strike("commits delayed", number, lambda: link.hold("requests"), "arriving")
        await asyncio.sleep(self._random.uniform(0.6, 2))
        link.release()

    async def lose_answers(self):
        """Redis does what a replica asks, which never hears of it."""
        number = self._choose_link()
        link = self._cluster.links[number]
        await self._strike("answers lost", number, lambda: link.hold("answers"))
        await asyncio.sleep(self._random.uniform(0.6, 2))
        link.drop()
        link.release()

    async def stop_redis(self):
        """SIGSTOP for a while: what comes meanwhile is done afterwards."""
        cluster = self._cluster
        strike = lambda: cluster.signal_redis(signal.SIGSTOP)  # noqa: E731
        await self._strike("Redis SIGSTOP", self._choose_link(), strike)
        await asyncio.sleep(self._random.uniform(0.3, 2))
        cluster.signal_redis(signal.SIGCONT)

    async def pause_redis(self):
        """Redis answers nobody for a while."""
        pause_ms = self._random.randrange(300, 1500)
        self._note("Redis CLIENT PAUSE", "redis")
        await asyncio.to_thread(self._cluster.redis.admin.client_pause, pause_ms)
        await asyncio.sleep(pause_ms / 1000)

    async def restart_redis(self):
        """SIGTERM, and a new start from the append-only file."""
        await self._end_redis("Redis SIGTERM", signal.SIGTERM)

    async def kill_redis(self):
        """SIGKILL, and a new start from the append-only file."""
        await self._end_redis("Redis kill -9", signal.SIGKILL)

    def _choose_replica(self):
        number = self._random.randrange(len(self._cluster.replicas))
        return number, self._cluster.replicas[number]

    def _choose_link(self):
        return self._random.randrange(len(self._cluster.links))

    async def _strike(self, kind, number, action, moment="sent"):
        """Do something to a replica, or to what it needs, at one of `_MOMENTS` of a commit."""

        def act():
            self._note(kind, self._cluster.replicas[number].name)
            action()

        links = self._cluster.links
        if not links:
            await asyncio.sleep(self._random.uniform(0, 0.01))
            act()
        elif moment == "elsewhere":
            await links[number - 1].spring("sent", act)
        else:
            await links[number].spring(moment, act)

    def _note(self, kind, target):
        self._desk.history.faults.append((self._desk.now, kind, target, self._desk.num_in_flight))

    async def _cut(self, kind, numbers):
        links = [self._cluster.links[number] for number in numbers]

        def cut():
            for link in links:
                link.is_cut = True
                link.drop()

        await self._strike(kind, numbers[0], cut)
        # At the longest the balancer finds out, too.
        await asyncio.sleep(self._random.uniform(0.2, 3.5))
        for link in links:
            link.is_cut = False

    async def _end_redis(self, kind, how):
        cluster = self._cluster
        await self._strike(kind, self._choose_link(), lambda: cluster.signal_redis(how))
        await cluster.stop_redis(how)
        await asyncio.sleep(self._random.uniform(0, 0.5))
        await cluster.start_redis()

    async def _until_ready(self, replica):
        # Its store may be away just now: then the next fault comes all the same.
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await replica.until_ready()
