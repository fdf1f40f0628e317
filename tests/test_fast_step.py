"""What makes a step fast changes no result: frozen products, layer norms that keep less, no waiting for a GPU."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from test_grouped import batches, members
from tiny import target_model, tiny_batch, tiny_t5
from tiny_models import tiny_model
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from pemt_core.model import frozen_products as products
from pemt_core.model.copies import copied
from pemt_core.model.encoder_decoder import EncoderDecoder, broadcasts_masks
from pemt_core.model.grouped.model import build_grouped_model
from pemt_core.model.layer_norm import TargetLayerNorm
from pemt_core.training.optimizer import make_optimizer

WIDE = {"d_model": 256, "d_kv": 64, "d_ff": 320, "vocab_size": 300, "num_layers": 1, "num_decoder_layers": 1}
ONEDNN = "mkldnn._linear_pointwise.default"
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal.")  # a GPU's result is read


class Operators(TorchDispatchMode):
    """Counts operators by name."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found[str(operator).removeprefix("aten.")] += 1
        indices = args[1] if "index.Tensor" in str(operator) else ()
        self.found["nonzero"] += sum(each is not None and each.dtype == torch.bool for each in indices)
        return operator(*args, **(kwargs or {}))


class Copies(TorchFunctionMode):
    """Counts the copies to another device by whether the CPU waits for them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        made = function(*args, **given)
        if function in (torch.tensor, torch.as_tensor, Tensor.to):
            before = args[0].device if isinstance(args[0], Tensor) else torch.device("cpu")
            if made.device != before:
                self.found["ahead" if given.get("non_blocking") else "waiting"] += 1
        return made


def copies(run: Callable[[], Any]) -> Counter[str]:
    with Copies() as counted:
        run()
    return counted.found


def operators(run: Callable[[], Any]) -> Counter[str]:
    with Operators() as counted:
        run()
    return counted.found


def gradients_of(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    output = model(**batch)
    output.loss.backward()
    return output.logits.detach(), {name: each.grad for name, each in model.trained.items()}


@contextmanager
def without_onednn(off: bool) -> Iterator[None]:
    """Not `torch.backends.mkldnn.flags`, which warns about Intel's GPUs."""
    torch._C._set_mkldnn_enabled(not off)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(True)


# Frozen products


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_frozen_product_and_its_gradient(has_bias: bool) -> None:
    """Against float64."""
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 3, 300, requires_grad=True), torch.randn(260, 300), torch.randn(260)
    gradient, arguments = torch.randn(2, 3, 260), (bias,) if has_bias else ()
    found = products._FrozenProduct.apply(x, weight, *arguments)
    found.backward(gradient)
    expected = x.double() @ weight.double().T + (bias.double() if has_bias else 0)
    assert x.grad is not None
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(x.grad.double(), gradient.double() @ weight.double(), rtol=1e-5, atol=1e-4)


def test_large_frozen_matrices_are_multiplied_by_onednn() -> None:
    """Logits and gradients are those of torch's default; the target adapters, which are trained, keep it."""
    batch = tiny_batch(vocab_size=300)
    model = target_model(tiny_t5(**WIDE), 3)
    with without_onednn(True):
        logits, gradients = gradients_of(model, batch)
    gradients = copy.deepcopy(gradients)
    model.zero_grad()
    counted = operators(lambda: gradients_of(model, batch))
    found = {name: each.grad for name, each in model.trained.items()}
    torch.testing.assert_close(model(**batch).logits, logits, rtol=1e-4, atol=1e-4 * float(logits.abs().max()))
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))
    frozen = 4 + 8 + 2 * 2 + 1  # attentions, wi and wo, head; the experts' matrices have too few rows
    assert counted[ONEDNN] == 2 * frozen


@pytest.mark.parametrize("case", ["small", "switched off", "bfloat16"])
def test_other_products_are_left_to_torch(case: str) -> None:
    model, batch = target_model(tiny_t5(**({} if case == "small" else WIDE)), 2), tiny_batch(vocab_size=64)
    with without_onednn(case == "switched off"), torch.autocast("cpu", torch.bfloat16, enabled=case == "bfloat16"):
        counted = operators(lambda: model(**batch))
    assert counted[ONEDNN] == 0


def test_trained_products_are_left_to_torch() -> None:
    backbone = tiny_t5(**WIDE)
    with products.frozen_products(backbone):
        assert operators(lambda: backbone.lm_head(torch.randn(2, 256)))[ONEDNN] == 0
        backbone.requires_grad_(False)
        assert operators(lambda: backbone.lm_head(torch.randn(2, 256)))[ONEDNN] == 1


def test_the_mode_ends_with_the_forward_pass() -> None:
    model = target_model(tiny_t5(**WIDE), 2)
    model(**tiny_batch(vocab_size=300))
    weight = torch.randn(300, 300)
    assert operators(lambda: F.linear(torch.randn(2, 300), weight))[ONEDNN] == 0


# Layer norms


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_norm_equals_autograd_on_rms_norm(offset: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, weight, gradient = (
        3 * torch.randn(3, 50, 96, dtype=dtype),
        torch.rand(96) + 0.5,
        torch.randn(3, 50, 96).to(dtype),
    )
    norm, read = TargetLayerNorm(torch.nn.Identity(), weight.clone(), epsilon=1e-6, offset=offset), x.clone()
    norm(read.requires_grad_()).backward(gradient)
    expected_read, scale = x.clone().requires_grad_(), weight.clone().requires_grad_()
    normed = F.rms_norm(expected_read.float(), (96,), eps=1e-6)
    ((offset + scale if offset else scale) * normed).to(dtype).backward(gradient)
    assert torch.equal(norm.weight.grad, scale.grad)
    assert torch.equal(read.grad, expected_read.grad)


def test_a_layer_norm_keeps_its_input_alone() -> None:
    norm = TargetLayerNorm(torch.nn.Identity(), torch.ones(96), epsilon=1e-6)
    x = torch.randn(1, 40, 96, requires_grad=True)
    kept: dict[int, int] = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: (kept.update({tensor.data_ptr(): tensor.numel()}), tensor)[1], lambda tensor: tensor
    ):
        norm(x)
    assert sorted(kept.values()) == [40, 96, 40 * 96]


# No waiting


POSITIONS = [{}, {"sparsity_positions": "unpadded"}, {"sparsity_coefficient": 0.0}]


@pytest.mark.parametrize("options", POSITIONS, ids=["all", "unpadded", "without"])
def test_a_step_reads_nothing_back_from_the_device(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the attention mask that a GPU gets."""
    monkeypatch.setattr(EncoderDecoder, "_attention_mask", lambda _model, mask: mask[:, None, None])
    model = target_model(tiny_t5(), 3, **options).train()
    optimizer, batch = make_optimizer(model.trained, 1e-3, {}), tiny_batch()

    def step() -> None:
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.trained.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step()
    counted = operators(step)
    assert counted["add.Tensor"] > 10
    assert {name: n for name, n in counted.items() if n and name.startswith(WAITING)} == {}


@pytest.mark.parametrize("models", [None, [4, 1]], ids=["all", "some"])
def test_a_step_of_a_group_waits_for_nothing(models: list[int] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the device `meta`, from which nothing can be read, and which has no autocast. Copied are the numbers of rows,
    the lengths of texts and labels, and the models."""
    monkeypatch.setattr(EncoderDecoder, "_attention_mask", lambda _model, mask: mask[:, None, None])
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    backbone, device = tiny_model("t5"), torch.device("meta")
    with build_grouped_model(backbone, members(backbone)) as group:
        group.model.to(device)
        group.coefficients = group.coefficients.to(device)
        own = [{name: copied(each, device) for name, each in batch.items()} for batch in batches()]
        chosen = own if models is None else [own[model] for model in models]
        counted = copies(lambda: group.losses(chosen, models).loss.sum().backward())
        gradient = group.matrix.values.grad
    assert gradient is not None
    assert gradient.is_meta
    assert counted == {"ahead": 3 if models is None else 4}


@pytest.mark.parametrize("kind", ["t5", "v1.1", "mt5"])
@pytest.mark.parametrize("is_padded", [True, False])
def test_a_mask_of_the_keys_alone_gives_the_same_logits(
    kind: str, is_padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = target_model(tiny_t5(kind), 3), tiny_batch(rows=4 if is_padded else 1)
    assert broadcasts_masks(model.backbone)
    expected, gradients = gradients_of(model, batch)
    gradients = copy.deepcopy(gradients)
    model.zero_grad()
    monkeypatch.setattr(EncoderDecoder, "_attention_mask", lambda _model, mask: mask[:, None, None])
    logits, found = gradients_of(model, batch)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(found, gradients)


def test_what_a_step_may_not_do_is_counted() -> None:
    x = torch.randn(4)
    counted = operators(lambda: (bool((x > 0).all()), x[x > 0]))
    assert counted["_local_scalar_dense.default"] + counted["is_nonzero.default"] == 1
    assert counted["nonzero"] == 1
    assert copies(lambda: (torch.tensor([1, 2], device="meta"), x.to("meta"), x.to(torch.float64))) == {"waiting": 2}
