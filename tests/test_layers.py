"""Each layer against its formula: folded experts and their cosines, gates, prompts, adapters, layer norms."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.t5.modeling_t5 import T5LayerNorm

from pemt_core.model.experts import FoldedExperts
from pemt_core.model.gate import EncodedGate, InputGate
from pemt_core.model.layer_norm import TargetLayerNorm
from pemt_core.model.prompt import CorrelationGuidedPrompt
from pemt_core.model.signal import ForwardSignal
from pemt_core.model.source_adapter import SourceAdaptedOutput
from pemt_core.model.target_adapter import TargetAdapter

B, S, F_, D = 3, 5, 12, 8


def folded(
    ranks: list[int], *, seed: int = 0
) -> tuple[FoldedExperts, nn.Linear, list[Tensor], list[Tensor], list[float]]:
    generator = torch.Generator().manual_seed(seed)
    wo = nn.Linear(F_, D, bias=False)
    downs = [torch.randn(rank, F_, generator=generator) for rank in ranks]
    ups = [torch.randn(D, rank, generator=generator) for rank in ranks]
    scales = [0.5 + k for k in range(len(ranks))]
    return FoldedExperts(wo, downs, ups, scales=scales), wo, downs, ups, scales


@pytest.mark.parametrize("ranks", [[4], [4, 4, 4], [2] * 14, [20, 20], [1, 4, 11]], ids=str)
def test_folded_experts_equal_the_loop(ranks: list[int]) -> None:
    """One expert, many, a rank above D, and unequal ranks: outputs, cosines and the gradients of both match."""
    torch.manual_seed(0)
    experts, wo, downs, ups, scales = folded(ranks)
    x, y = torch.randn(B, S, F_), torch.randn(B, S, D)
    g = torch.rand(B, len(ranks))
    direction = torch.randn(B, S, D)

    def run(use_loop: bool) -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in (x, y, g)]
        x_, y_, g_ = leaves
        if use_loop:
            outputs = [s * (x_ @ v.T) @ u.T for s, v, u in zip(scales, downs, ups, strict=True)]
            h = x_ @ wo.weight.detach().T + sum(g_[:, k, None, None] * e for k, e in enumerate(outputs))
            cosines = torch.stack([F.cosine_similarity(y_, e, dim=-1) for e in outputs], dim=-1)
        else:
            h, channels = experts(x_, g_)
            cosines = experts.cosines(y_, channels)
        ((h * direction).sum() + (cosines * torch.arange(1.0, len(ranks) + 1)).sum()).backward()
        return [h.detach(), cosines.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]

    for value, reference in zip(run(False), run(True), strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-4, atol=1e-6 * float(reference.abs().max()))


def test_an_untrained_expert_has_cosine_zero_and_finite_gradients() -> None:
    experts = FoldedExperts(nn.Linear(F_, D, bias=False), [torch.randn(4, F_)], [torch.zeros(D, 4)], scales=[1.0])
    x = torch.randn(B, S, F_, requires_grad=True)
    h, channels = experts(x, torch.ones(B, 1))
    cosines = experts.cosines(h, channels)
    assert (cosines == 0).all()
    cosines.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_cosines_stay_in_range_for_outputs_near_zero(dtype: torch.dtype) -> None:
    """U has rank one and the input is near its null space: in low precision v' U'U v can be negative."""
    generator = torch.Generator().manual_seed(0)
    up = torch.outer(torch.randn(64, generator=generator), torch.randn(16, generator=generator))
    experts = FoldedExperts(nn.Linear(32, 64, bias=False), [torch.randn(16, 32)], [up], scales=[1.0])
    experts = experts.to(dtype)
    channels = torch.randn(64, 100, 1, 16, generator=generator).to(dtype)
    near_zero = channels - (channels.float() @ up[0] / (up[0] @ up[0]))[..., None].to(dtype) * up[0].to(dtype)
    y = torch.randn(64, 100, 64, generator=generator).to(dtype)
    for v in (channels, near_zero):
        cosines = experts.cosines(y, v)
        assert cosines.dtype == torch.float32
        assert cosines.abs().max() <= 1.0
    exact = F.cosine_similarity(y.double(), (channels.double() @ up.double().T).squeeze(2), dim=-1)
    error = (experts.cosines(y, channels).squeeze(-1).double() - exact).abs()
    assert error.mean() < (1e-5 if dtype == torch.float32 else 2e-2)


def test_gates_read_the_prompt_and_start_uniform() -> None:
    signal = ForwardSignal()
    x = torch.randn(B, S, F_)
    mask = torch.ones(B, 2, dtype=torch.bool)
    weight = torch.randn(F_, 4)
    with signal.open(mask):
        found = InputGate(nn.Parameter(weight), signal).weights(x)
        uniform = InputGate(nn.Parameter(torch.zeros(F_, 4)), signal).weights(x)
    torch.testing.assert_close(found, torch.softmax(x[:, :2].mean(1) @ weight, dim=-1))
    assert torch.equal(uniform, torch.full((B, 4), 0.25))


def test_padding_left_of_a_prompt_is_not_read() -> None:
    signal = ForwardSignal()
    x = torch.randn(2, S, F_)
    mask = torch.tensor([[False, True, True], [True, True, True]])
    with signal.open(mask):
        found = InputGate(nn.Parameter(torch.eye(F_)), signal).gate_input(x)
    torch.testing.assert_close(found, torch.stack([x[0, 1:3].mean(0), x[1, :3].mean(0)]))


def test_the_decoder_gate_reads_the_encoder_once_per_beam() -> None:
    signal = ForwardSignal()
    state = torch.randn(2, S, D)
    weight = torch.randn(D, 3)
    gate = EncodedGate(nn.Parameter(weight), signal)
    with signal.open(torch.ones(2, 2, dtype=torch.bool)):
        signal.encoder_hook(nn.Identity(), (), (state,))
        found = gate.weights(torch.randn(6, 1, F_))
    expected = torch.softmax(state[:, :2].mean(1) @ weight, dim=-1).repeat_interleave(3, dim=0)
    torch.testing.assert_close(found, expected)


def test_a_gate_outside_a_forward_pass_is_refused() -> None:
    with pytest.raises(RuntimeError, match="outside its PromptedModel"):
        InputGate(nn.Parameter(torch.zeros(F_, 2)), ForwardSignal()).weights(torch.randn(B, S, F_))
    with pytest.raises(RuntimeError, match="before the encoder"):
        EncodedGate(nn.Parameter(torch.zeros(D, 2)), ForwardSignal()).weights(torch.randn(B, S, F_))


def test_the_signal_is_cleared_even_after_an_error() -> None:
    signal = ForwardSignal()
    with pytest.raises(ValueError, match="stop"), signal.open(torch.ones(1, 1, dtype=torch.bool), {}):
        raise ValueError("stop")
    assert not signal.collects_sparsity
    with pytest.raises(RuntimeError):
        signal.prompt_mean(torch.zeros(1, 1, 1))


def test_the_guided_prompt_equals_its_formula() -> None:
    """Sources differ in length; attention is per source, without scaling."""
    vectors, sources = torch.randn(4, D), [torch.randn(length, D) for length in (1, 5, 3)]
    prompt = CorrelationGuidedPrompt(vectors, sources, dropout=0.5).eval()
    expected = vectors + sum(torch.softmax(vectors @ source.T, dim=-1) @ source for source in sources)
    torch.testing.assert_close(prompt(), expected)
    mean = CorrelationGuidedPrompt(vectors, sources, dropout=0.5, guide="mean").eval()
    torch.testing.assert_close(mean(), vectors + (expected - vectors) / 3)


def test_prompt_dropout_applies_to_attention_in_training_only() -> None:
    torch.manual_seed(0)
    prompt = CorrelationGuidedPrompt(torch.zeros(4, D), [torch.ones(10, D)], dropout=0.5)
    torch.testing.assert_close(prompt.eval()(), torch.ones(4, D))
    prompt.train()
    sums = torch.stack([prompt() for _ in range(400)])
    kept = (sums[..., 0] * 5).round()  # each of ten rows has weight 0.1, or twice that when it is kept
    torch.testing.assert_close(sums, (kept / 5)[..., None].expand_as(sums))
    assert sums.mean().item() == pytest.approx(1.0, abs=0.05)
    assert kept.unique().numel() > 5


def test_source_and_target_adapters_equal_their_formulas() -> None:
    x = torch.randn(B, S, F_)
    wo, down, up = nn.Linear(F_, D, bias=False), torch.randn(3, F_), torch.randn(D, 3)
    adapted = SourceAdaptedOutput(wo, down, up, scale=0.25)
    torch.testing.assert_close(adapted(x), x @ wo.weight.T + 0.25 * (x @ down.T) @ up.T)

    h, adapter = torch.randn(B, S, D), TargetAdapter(D, 2)
    inner = h @ adapter.down.weight.T + adapter.down.bias
    gelu_new = 0.5 * inner * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (inner + 0.044715 * inner**3)))
    torch.testing.assert_close(adapter(h), h + gelu_new @ adapter.up.weight.T + adapter.up.bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_targets_layer_norm_equals_t5s(dtype: torch.dtype) -> None:
    base = T5LayerNorm(D, eps=1e-6)
    base.weight.data = torch.randn(D)
    norm = TargetLayerNorm(base, base.weight.detach().clone(), epsilon=base.variance_epsilon).to(dtype)
    x = torch.randn(B, S, D, dtype=dtype) * 100
    found = norm(x)
    assert found.dtype == dtype
    torch.testing.assert_close(
        found.float(), base.float()(x.float()), rtol=1e-5 if dtype == torch.float32 else 2e-2, atol=1e-2
    )


def test_a_wrong_shape_is_caught_by_the_signatures() -> None:
    """The import hook of conftest.py works: without it, these shapes would broadcast or pass unnoticed."""
    experts, *_ = folded([4, 4])
    with pytest.raises(TypeCheckError):
        experts(torch.randn(B, S, F_), torch.ones(B + 1, 2))
    with pytest.raises(TypeCheckError):  # one row of weights would broadcast over the batch
        experts(torch.randn(B, S, F_), torch.ones(1, 2))
    with pytest.raises(TypeCheckError):
        experts.cosines(torch.randn(B, 1, D), torch.randn(B, S, 2, 4))
    with pytest.raises(TypeCheckError):
        FoldedExperts(nn.Linear(F_, D), [torch.randn(4, F_)], [torch.randn(4)], scales=[1.0])
    with pytest.raises(TypeCheckError):
        CorrelationGuidedPrompt(torch.randn(2, D), [torch.randn(2, D + 1)], dropout=0.0)
    with pytest.raises(TypeCheckError):
        TargetAdapter(D, 2)(torch.randn(S, D))
