"""Google's update and shrinking of a group behind its load balancer, second by second, by the values that the program declares.

As strict as the platform, and at its worst where it leaves a choice:

- The updater makes new VMs up to ``maxSurge`` above the size, and takes an old one away as soon as ``maxUnavailable`` allows. Available is what was healthy
  once by the group's check (https://cloud.google.com/compute/docs/instance-groups/rolling-out-updates-to-managed-instance-groups#max_unavailable); the
  updater does not ask the load balancer.
- Every proxy of the load balancer asks by itself, at its own seconds, and takes a new server for dead until it has answered
  (https://cloud.google.com/load-balancing/docs/health-check-concepts).
- A server that leaves gets no new request at once, and its VM may go when ``drainingTimeoutSec`` is over, whatever it still does
  (https://cloud.google.com/load-balancing/docs/enabling-connection-draining). A request that takes longer than the backend's ``timeoutSec`` is cut.
- A VM is made again when it is unhealthy after its initial delay
  (https://cloud.google.com/compute/docs/instance-groups/autohealing-instances-in-migs).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engine import Run

PROXY_PHASES = (0, 4, 9)


@dataclass(frozen=True)
class Check:
    interval_s: int
    healthy: int
    unhealthy: int


@dataclass(frozen=True)
class Declared:
    """What the program asks Google for."""

    surge: int
    unavailable: int
    delay_s: int
    group: Check
    balancer: Check
    draining_s: int
    timeout_s: int

    @staticmethod
    def of(run: Run) -> Declared:
        group, backend = run.only("RegionInstanceGroupManager").inputs, run.only("RegionBackendService").inputs
        assert group["updatePolicy"]["type"] == "PROACTIVE" and group["updatePolicy"]["replacementMethod"] == "SUBSTITUTE"
        checks = (run.only("HealthCheck").inputs, run.only("RegionHealthCheck").inputs)
        mine, theirs = (Check(one["checkIntervalSec"], one["healthyThreshold"], one["unhealthyThreshold"]) for one in checks)
        policy, delay_s = group["updatePolicy"], group["autoHealingPolicies"]["initialDelaySec"]
        draining_s, timeout_s = backend["connectionDrainingTimeoutSec"], backend["timeoutSec"]
        return Declared(policy["maxSurgeFixed"], policy["maxUnavailableFixed"], delay_s, mine, theirs, draining_s, timeout_s)


@dataclass
class Server:
    born_s: int
    ready_s: int
    is_old: bool
    was_healthy: bool = False
    leaves_s: int | None = None
    #: Answers in a row by who asks: the group (-1) and each proxy; failures are negative.
    answers: dict[int, int] = field(default_factory=dict)
    #: When each request on its way will have been answered.
    streams: list[int] = field(default_factory=list)

    def asked(self, who: int, now_s: int) -> None:
        before = self.answers.get(who, 0)
        ready = now_s >= self.ready_s
        self.answers[who] = max(before, 0) + 1 if ready else min(before, 0) - 1


@dataclass
class Rollout:
    """``size`` old servers and a request every second; ``start_s`` is what a new server takes until it answers, ``phase`` when the group's check asks."""

    declared: Declared
    size: int
    start_s: int
    phase: int = 0
    lost: int = 0
    refused: int = 0
    healed: int = 0
    most: int = 0
    servers: list[Server] = field(default_factory=list)

    def update(self) -> Rollout:
        """Until no old server is left."""
        self._begin()
        now_s = 0
        while any(one.is_old for one in self.servers) or any(one.leaves_s is not None for one in self.servers):
            assert now_s < 30_000, "it does not end"
            self._updater(now_s)
            self._second(now_s)
            now_s += 1
        return self

    def shrink(self, to: int) -> Rollout:
        """The autoscaler takes servers away."""
        self._begin()
        for one in self.servers[to:]:
            one.leaves_s = self.declared.draining_s
        for now_s in range(self.declared.draining_s + 10):
            self._second(now_s)
        return self

    def _begin(self) -> None:
        self.servers = [Server(-10_000, -9_000, is_old=True, was_healthy=True) for _ in range(self.size)]
        for one in self.servers:
            one.answers = dict.fromkeys((-1, *range(len(PROXY_PHASES))), 99)
            one.streams = [self.declared.timeout_s - 1]

    def _updater(self, now_s: int) -> None:
        staying = [one for one in self.servers if one.leaves_s is None]
        new, old = [one for one in staying if not one.is_old], [one for one in staying if one.is_old]
        while len(new) < self.size and len(new) + len(old) < self.size + self.declared.surge:
            made = Server(now_s, now_s + self.start_s, is_old=False)
            new.append(made)
            self.servers.append(made)
        available = sum(one.was_healthy for one in staying)
        for one in old:
            if available - 1 >= self.size - self.declared.unavailable:
                one.leaves_s, available = now_s + self.declared.draining_s, available - 1
        self.most = max(self.most, len(self.servers))

    def _second(self, now_s: int) -> None:
        group, balancer = self.declared.group, self.declared.balancer
        for one in list(self.servers):
            if one.leaves_s is not None and now_s >= one.leaves_s:
                self.lost += sum(end_s > now_s for end_s in one.streams)
                self.servers.remove(one)
                continue
            if now_s % group.interval_s == self.phase % group.interval_s and one.leaves_s is None:
                one.asked(-1, now_s)
                one.was_healthy = one.was_healthy or one.answers[-1] >= group.healthy
                if one.answers[-1] <= -group.unhealthy and now_s - one.born_s >= self.declared.delay_s:
                    self.healed += 1
                    one.born_s, one.ready_s, one.answers = now_s, now_s + self.start_s, {}
            for number, at in enumerate(PROXY_PHASES):
                if now_s % balancer.interval_s == at % balancer.interval_s:
                    one.asked(number, now_s)
            one.streams = [end_s for end_s in one.streams if end_s > now_s]
        # A new request: to the server with the fewest on their way, of those that this proxy takes for alive.
        proxy = now_s % len(PROXY_PHASES)
        alive = [one for one in self.servers if one.leaves_s is None and one.answers.get(proxy, 0) >= balancer.healthy]
        if not alive:
            self.refused += 1
            return
        chosen = min(alive, key=lambda one: len(one.streams))
        takes_s = (2, 30, self.declared.timeout_s)[now_s % 7 % 3]
        chosen.streams.append(now_s + takes_s)
