"""The counts and the simulation of benchmarks/scale.py, checked by closed forms, torch's counter and real files."""

import importlib.util
import random
import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import World, random_experts, target_model, tiny_batch, tiny_t5
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from pemt_core.artifacts.files import read_json
from pemt_core.comparison import scale as work
from pemt_core.model.assemble import build_source_model
from pemt_core.model.prompted import PromptedModel
from pemt_core.settings.groups import STEPS
from pemt_core.steps.plan import make_plan

REPOSITORY = Path(__file__).parent.parent
MEDIUM = {"d_model": 64, "d_ff": 256, "d_kv": 16, "vocab_size": 256}  # makes uncounted operations negligible
ROWS, TOKENS, LABELS = 8, 48, 6


def load_benchmark(name: str) -> Any:
    """Import a program of benchmarks/, which is not a package."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)  # dataclasses look up types there
    spec.loader.exec_module(module)
    return module


sys.path.insert(0, str(REPOSITORY / "benchmarks"))  # the programs there import each other
study, simulation = load_benchmark("scale_work"), load_benchmark("scale_simulation")


def job(name: str, seconds: float, *needs: str, loop: str = "", item: str = "") -> Any:
    return simulation.Job(name, seconds, 0.0, needs, loop, item)


def random_jobs(seed: int) -> list[Any]:
    generator, jobs = random.Random(seed), []
    for number in range(40):
        needs = generator.sample([one.name for one in jobs], k=min(number, generator.choice([0, 0, 1, 2])))
        jobs.append(job(str(number), generator.uniform(1, 10), *needs))
    return jobs


# List scheduling


def test_one_node_takes_the_sum() -> None:
    jobs = random_jobs(0)
    assert simulation.wall(jobs, 1, 1) == pytest.approx(sum(one.seconds for one in jobs))


def test_unlimited_nodes_take_the_longest_chain() -> None:
    for seed in range(5):
        jobs = random_jobs(seed)
        chain = simulation.critical_path(jobs)
        assert all(before.name in after.needs for before, after in pairwise(chain))
        assert simulation.wall(jobs, len(jobs), 1) == pytest.approx(sum(one.seconds for one in chain))


@pytest.mark.parametrize("nodes", [1, 2, 3, 7, 50])
def test_equal_independent_jobs_come_in_rounds(nodes: int) -> None:
    jobs = [job(str(number), 3.0) for number in range(20)]
    assert simulation.wall(jobs, nodes, 1) == pytest.approx(3.0 * ceil(20 / nodes))


@pytest.mark.parametrize("nodes", [2, 3, 5, 8])
def test_list_scheduling_stays_within_its_bounds(nodes: int) -> None:
    """The time is at least an equal share and the longest job, and at most Graham's bound."""
    for seed in range(10):
        jobs = random_jobs(seed)
        whole, longest = sum(one.seconds for one in jobs), max(one.seconds for one in jobs)
        chain = sum(one.seconds for one in simulation.critical_path(jobs))
        found = simulation.wall(jobs, nodes, 1)
        assert max(whole / nodes, longest, chain) - 1e-9 <= found <= whole / nodes + (1 - 1 / nodes) * chain + 1e-9


def test_jobs_wait_for_their_needs_and_nodes_run_one_at_a_time() -> None:
    jobs = random_jobs(3)
    spans = simulation.schedule(jobs, 4, 1)
    assert all(spans[need][1] <= spans[one.name][0] for one in jobs for need in one.needs)
    starts = [start for start, _ in spans.values()]
    assert max(sum(begin <= at < end for begin, end in spans.values()) for at in starts) == 4


def test_a_loop_runs_as_many_iterations_as_its_parallelism_allows() -> None:
    jobs = [
        job(f"{part}{n}", 1.0, *([f"a{n}"] * (part == "b")), loop="l", item=str(n)) for n in range(6) for part in "ab"
    ]
    assert simulation.wall(jobs, 100, 2) == pytest.approx(6.0)  # three rounds of two iterations with two jobs each
    assert simulation.wall(jobs, 100, 6) == pytest.approx(2.0)


# Jobs of the pipeline


@pytest.fixture(scope="module")
def settings() -> Any:
    return study.full_study(REPOSITORY / "params.yaml", [1, 2, 3], [2e-3, 1e-4])


def jobs_of(settings: Any, parts: int = 1) -> list[Any]:
    return simulation.jobs_of(make_plan(settings, REPOSITORY), lambda key: 10.0, lambda step: 1.0, parts)


def test_the_jobs_are_the_containers_of_the_pipeline(settings: Any) -> None:
    steps = Counter(one.name.split("/")[0] for one in jobs_of(settings))
    assert set(steps) == set(STEPS)
    assert steps["train_source"] == 6
    assert {steps[name] for name in ("transfer", "evaluate", "record", "register")} == {17 * 3}
    assert len(settings.transfer.learning_rates) == 5
    assert settings.transfer.k == ["full"]


def test_a_branch_per_learning_rate_shares_the_work_of_a_cell(settings: Any) -> None:
    whole, parted = jobs_of(settings), jobs_of(settings, 5)
    assert len(parted) - len(whole) == 17 * 3 * 4
    assert sum(one.work for one in parted) == pytest.approx(sum(one.work for one in whole))


def test_rows_follow_the_split_rules() -> None:
    published = {"cola": 522, "stsb": 750, "mrpc": 204, "rte": 139, "multirc": 2_424, "boolq": 1_635, "wic": 319}
    published |= {"wsc": 52, "cb": 28, "nq": 12_836, "searchqa": 16_980, "yelp": 38_000, "scitail": 652, "paws": 8_000}
    assert {name: work.rows_of(name)["test"] for name in published} == published
    assert work.rows_of("yelp")["train"] == 100_000
    assert work.rows_of("qnli") == {"train": 103_743, "validation": 1_000, "test": 5_463}


def test_steps_of_a_training_are_epochs_times_batches(settings: Any) -> None:
    lengths = {name: work.Lengths(50, 5, 20, 100) for name in work.ROWS}
    found = study.works_of(settings, lengths, work.Gpu(1e14, 1e-5))
    assert found["train_source/mnli"].steps == 5 * ceil(392_702 / 128)
    assert found["transfer/cb"].steps == 5 * 20 * 8  # learning rates, epochs, batches of 32 of 250 rows
    assert found["transfer/nq"].steps == 5 * 5 * ceil(103_071 / 32)


# Operations


def stage2() -> tuple[PromptedModel, Any, Any]:
    backbone = tiny_t5(**MEDIUM)
    return target_model(backbone, 3), backbone, work.Attached(experts=3, rank=3, bottleneck=16)


def stage1() -> tuple[PromptedModel, Any, Any]:
    backbone = tiny_t5(**MEDIUM)
    tensors = random_experts(backbone, 3, rank=3)[2].tensors  # its prompt has five rows
    return build_source_model(backbone, tensors, scale=1.0), backbone, work.Attached(experts=1, rank=3)


def counted(run: Callable[[], Any]) -> int:
    """Count operations with unfused attention, as torch does not count fused attention on the CPU."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("make", [stage1, stage2])
def test_operations_of_a_training_step_match_the_counter_of_torch(make: Callable[[], tuple[Any, Any, Any]]) -> None:
    """The counts agree to 1 %: ours omits the gates and the prompt's attention to the sources' prompts."""
    model, backbone, parts = make()
    shape, batch = work.Shape.of(backbone.config.to_dict()), tiny_batch(ROWS, length=TOKENS, label_length=LABELS)
    positions = TOKENS + 5
    formula = ROWS * sum(work.forward(shape, parts, positions, LABELS, sparsity=True))
    assert counted(lambda: model(**batch)) == pytest.approx(formula, rel=0.01)
    step = ROWS * work.training_flops(shape, parts, positions, LABELS)
    assert counted(lambda: model(**batch).loss.backward()) == pytest.approx(step, rel=0.01)


def generate(model: PromptedModel, tokens: int) -> Any:
    batch = tiny_batch(ROWS, length=TOKENS)
    return model.generate(
        batch["input_ids"], batch["attention_mask"], do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens
    )


def test_operations_of_generation_match_the_counter_of_torch() -> None:
    model, backbone, parts = stage2()
    shape = work.Shape.of(backbone.config.to_dict())
    formula = ROWS * sum(work.forward(shape, parts, TOKENS + 5, LABELS, sparsity=False))
    assert counted(lambda: generate(model, LABELS)) == pytest.approx(formula, rel=0.01)


class Operators(TorchDispatchMode):
    """Counts the operators that compute something, which views do not."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += not operator.is_view
        return operator(*args, **(kwargs or {}))


def num_operators(run: Callable[[], Any]) -> int:
    with Operators() as operators:
        run()
    return operators.number


def test_the_number_of_operators_matches_the_benchmark() -> None:
    """Each stack has twelve layers, as in T5-base; width and batch size do not matter."""
    twelve = {"num_layers": 12, "num_decoder_layers": 12}
    target, batch = target_model(tiny_t5(**twelve), 6), tiny_batch()
    assert num_operators(lambda: target.train()(**batch).loss.backward()) == pytest.approx(
        work.STEP_OPERATORS["transfer"], rel=0.1
    )
    backbone = tiny_t5(**twelve)
    source = build_source_model(backbone, random_experts(backbone, 1)[0].tensors, scale=1.0)
    assert num_operators(lambda: source.train()(**batch).loss.backward()) == pytest.approx(
        work.STEP_OPERATORS["train_source"], rel=0.1
    )
    target.eval()
    one, five = (num_operators(lambda n=n: generate(target, n)) for n in (1, 5))
    assert (five - one) / 4 == pytest.approx(work.TOKEN_OPERATORS, rel=0.1)
    assert one - work.TOKEN_OPERATORS == pytest.approx(work.ENCODE_OPERATORS, rel=0.1)


# Storage


def test_t5_base_has_the_published_number_of_parameters() -> None:
    shape = work.Shape()
    assert shape.backbone() == 222_903_552
    assert shape.source(64, 0) == 5_898_240  # docs/method.md
    assert shape.target(6, 48, 0) == 2_113_152


def test_sizes_match_the_files_of_the_steps(tmp_path: Path) -> None:
    world = World.make(tmp_path / "world")
    world.transfer(tmp_path / "targets", methods=["pemt", "control", "without_beta"], epochs=1)
    shape = work.Shape.of(read_json(world.folder / "backbone/config.json"))
    assert study.tensor_bytes(world.folder / "backbone/model.safetensors") == 4 * shape.backbone()
    sources = sorted(world.folder.glob("adapters/*/adapter.safetensors"))
    cells = sorted(tmp_path.glob("targets/*/adapter.safetensors"))
    assert (len(sources), len(cells)) == (2, 3)
    for path in (*sources, *cells):
        assert study.predicted_bytes(path, shape) == study.tensor_bytes(path)
    experts = study.tensor_bytes(world.folder / "experts/experts.safetensors")
    assert experts == sum(study.predicted_bytes(path, shape) for path in sources)


def test_a_file_consists_of_a_header_and_tensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(3, 5), "b": torch.zeros(7)}, tmp_path / "file.safetensors")
    assert study.tensor_bytes(tmp_path / "file.safetensors") == 4 * (15 + 7)
