"""Simulate the containers of pipelines/pipeline.py on n nodes by list scheduling, for benchmarks/scale.py."""

import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scale_work import BRANCH_STEPS

from pemt_core.comparison.scale import Lengths, Shape, Work, rows_of
from pemt_core.settings import Settings
from pemt_core.settings.groups import STEPS
from pemt_core.steps.plan import Plan, make_plan

NODES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Job:
    """A container. Jobs of one `item` of a `loop` count once against the loop's parallelism."""

    name: str
    work: float  # seconds
    overhead: float  # seconds: start-up, artifacts down and up
    needs: tuple[str, ...] = ()
    loop: str = ""
    item: str = ""

    @property
    def seconds(self) -> float:
        return self.work + self.overhead


def jobs_of(plan: Plan, work: Callable[[str], float], overhead: Callable[[str], float], parts: int = 1) -> list[Job]:
    """The containers of pipelines/pipeline.py; the trainings of a cell are split into `parts` branches."""

    def job(name: str, key: str, *needs: str, share: int = 1, loop: str = "", item: str = "") -> Job:
        return Job(name, work(key) / share, overhead(key.split("/")[0]), needs, loop, item)

    sources = [f"train_source/{name}" for name in plan.train_source]
    jobs = [job("plan", "plan"), job("prepare", "prepare", "plan"), job("backbone", "backbone", "prepare")]
    jobs += [job(name, name, "backbone", loop="sources", item=name) for name in sources]
    jobs.append(job("collect_experts", "collect_experts", *sources))
    for branch in plan.branches:
        (target,) = branch.targets  # as `kubeflow.targets_per_branch` is 1
        transfer, seed = f"transfer/{target}", f"/{branch.seed}"
        names = [transfer + seed + f"/{part}" * (parts > 1) for part in range(parts)]
        jobs += [
            job(name, transfer, "collect_experts", share=parts, loop="branches", item=name.removeprefix("transfer/"))
            for name in names
        ]
        for step in BRANCH_STEPS:
            name = f"{step}/{target}"
            jobs.append(job(name + seed, name, *names, loop="branches", item=target + seed))
            names = [name + seed]
    return [*jobs, job("report", "report", *(one.name for one in jobs))]


def schedule(jobs: Sequence[Job], nodes: int, parallelism: int) -> dict[str, tuple[float, float]]:
    """Start and end of every job: a free node takes the first job that may start."""
    left = Counter((job.loop, job.item) for job in jobs if job.loop)
    waiting, spans, clock = list(jobs), {}, 0.0
    running: list[tuple[float, int, Job]] = []
    done: set[str] = set()
    opened: set[tuple[str, str]] = set()
    while waiting or running:
        for job in list(waiting):
            key = (job.loop, job.item)
            full = key not in opened and sum(loop == job.loop for loop, _ in opened) >= parallelism
            if len(running) < nodes and done.issuperset(job.needs) and not (job.loop and full):
                opened |= {key} if job.loop else set()
                waiting.remove(job)
                spans[job.name] = (clock, clock + job.seconds)
                heapq.heappush(running, (clock + job.seconds, len(spans), job))
        clock, _, ended = heapq.heappop(running)
        done.add(ended.name)
        left[ended.loop, ended.item] -= 1
        opened -= {key for key in opened if not left[key]}
    return spans


def wall(jobs: Sequence[Job], nodes: int, parallelism: int) -> float:
    return max(end for _, end in schedule(jobs, nodes, parallelism).values())


def critical_path(jobs: Sequence[Job]) -> list[Job]:
    """The longest chain of jobs, each of which needs the one before. Every job comes after those that it needs."""
    longest: dict[str, tuple[float, list[Job]]] = {}
    for job in jobs:
        before, path = max((longest[need] for need in job.needs), key=lambda found: found[0], default=(0.0, []))
        longest[job.name] = (before + job.seconds, [*path, job])
    return max(longest.values(), key=lambda found: found[0])[1]


@dataclass(frozen=True)
class Study:
    """The data behind all tables."""

    settings: Settings
    lengths: Mapping[str, Lengths]
    works: Mapping[str, Work]  # on the GPU of the simulation
    demo: Mapping[str, float]
    prepare_seconds: float
    start: float
    bandwidth: float

    @property
    def plan(self) -> Plan:
        return make_plan(self.settings, Path())

    @property
    def sizes(self) -> dict[str, float]:
        """The bytes of each artifact; for adapters, cells and prepared tasks, the mean."""
        shape, tasks = Shape(), self.settings.tasks
        rank, bottleneck = self.settings.train_source.rank, shape.d_model // self.settings.transfer.reduction_factor
        sources = [4 * shape.source(rank, self.lengths[name].prompt) for name in tasks.sources]
        cells = [4 * shape.target(len(sources), bottleneck, self.lengths[name].prompt) for name in tasks.targets]
        data = [self.lengths[name].bytes_per_row * sum(rows_of(name).values()) for name in self.lengths]
        return {
            "data": sum(data),
            "data of one task": sum(data) / len(data),
            "backbone": 4 * shape.backbone(),
            "source adapter": sum(sources) / len(sources),
            "experts": sum(sources),
            "cell": sum(cells) / len(cells),
        }

    def moved(self, step: str, data: str = "data") -> float:
        """Bytes that a container of `step` loads and stores."""
        size = self.sizes
        shared = size[data] + size["backbone"]
        return {
            "prepare": size["data"],
            "backbone": size["data"] + 2 * size["backbone"],
            "train_source": shared + size["source adapter"],
            "collect_experts": 2 * size["experts"],
            "transfer": shared + size["experts"] + size["cell"],
            "evaluate": shared + size["experts"] + size["cell"],
            "register": shared + size["experts"] + size["cell"],
        }.get(step, 0.0)

    def t5_base(self, parts: int = 1, *, longest_first: bool = False) -> list[Job]:
        """The containers with calculated times; steps such as `collect_experts` take the demo's times."""
        known = {**self.demo, "prepare": self.prepare_seconds}
        known |= {name: work.seconds for name, work in self.works.items()}
        plan = self.plan
        if longest_first:
            plan.branches.sort(key=lambda branch: -known[f"transfer/{branch.targets[0]}"])
        seconds = {step: self.start + self.moved(step) / self.bandwidth for step in STEPS}
        return jobs_of(plan, known.__getitem__, seconds.__getitem__, parts)

    def embedded(self) -> list[Job]:
        """The containers with the demo's measured times; its artifacts are small."""
        return jobs_of(self.plan, self.demo.__getitem__, lambda step: self.start)

    def designs(self) -> dict[str, tuple[list[Job], int]]:
        """The containers of each design, and how many iterations of a loop run at a time."""
        built, rates = self.settings.kubeflow.parallelism, len(self.settings.transfer.learning_rates)
        wide = max(NODES)
        return {
            f"as built ({built} at a time)": (self.t5_base(), built),
            f"{wide} at a time": (self.t5_base(), wide),
            f"{wide}, longest first": (self.t5_base(longest_first=True), wide),
            f"{wide}, longest first, a branch per rate": (self.t5_base(rates, longest_first=True), wide),
            "the demo's measured times": (self.embedded(), built),
        }


def used(jobs: Sequence[Job], nodes: int, parallelism: int) -> float:
    """The share of the nodes' time that is spent on work, not on starting, loading and waiting."""
    return sum(job.work for job in jobs) / (nodes * wall(jobs, nodes, parallelism))
