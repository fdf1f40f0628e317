"""The trained tensors of N models as rows of one matrix, from which a pass picks those that its rows belong to.

The B rows of a batch are G equal blocks of neighbouring rows, and each block belongs to one model. A training of N
models has G = N, and then nothing is copied; a request whose rows belong to any models has G = B. Candidates and beams,
which repeat each row in its place, only make the blocks larger.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from pemt_core.model.copies import copied

PROMPT = "prompt"
_Piece = tuple[str, torch.Size]  # a name and a shape: gates of the same name differ in shape


class TensorMatrix(nn.Module):
    """All tensors of model n are in row n. Prompts of different lengths are padded on their left to P vectors.

    A column that a model has no tensor for holds a neutral value, is not trained, and stays as it is.
    """

    is_trained: Tensor
    prompt_mask: Tensor

    def __init__(self, models: Sequence[Mapping[str, Tensor]], neutral: Mapping[str, Tensor]) -> None:
        """`neutral`: the value of a tensor in the models without it; the default is 0."""
        super().__init__()
        self.lengths = [len(tensors[PROMPT]) for tensors in models]
        longest = max(self.lengths)
        padded = [{**tensors, PROMPT: _padded_left(tensors[PROMPT], longest)} for tensors in models]
        self._pieces = list(dict.fromkeys((name, tensor.shape) for each in padded for name, tensor in each.items()))
        self._sizes = [shape.numel() for _, shape in self._pieces]
        self._own = [{name: tensor.shape for name, tensor in tensors.items()} for tensors in padded]  # by model
        self.values = nn.Parameter(torch.stack([self._row(tensors, neutral) for tensors in padded]))
        trained = torch.stack([self._trained_columns(own) for own in self._own])
        positions = torch.arange(longest) >= longest - torch.tensor(self.lengths).unsqueeze(1)
        self.register_buffer("is_trained", trained.to(self.values.device), persistent=False)
        self.register_buffer("prompt_mask", positions.to(self.values.device), persistent=False)
        self._picked: dict[_Piece, Tensor] = {}
        self._models: Tensor | None = None
        self.num_blocks = self.prompt_length = 0  # of a pass

    def _row(self, tensors: Mapping[str, Tensor], neutral: Mapping[str, Tensor]) -> Float[Tensor, " W"]:
        device = tensors[PROMPT].device
        values = []
        for name, shape in self._pieces:
            own = tensors.get(name)
            if own is None or own.shape != shape:
                own = neutral.get(name, torch.zeros(shape))
            values.append(own.detach().to(device).float().flatten())
        return torch.cat(values)

    def _trained_columns(self, own: Mapping[str, torch.Size]) -> Bool[Tensor, " W"]:
        has = [own.get(name) == shape for name, shape in self._pieces]
        return torch.tensor(has).repeat_interleave(torch.tensor(self._sizes))

    def shapes(self, name: str) -> list[torch.Size]:
        """The shapes that tensors of this name have: none if no model has one."""
        return [shape for found, shape in self._pieces if found == name]

    def tensors(self, number: int, of: Float[Tensor, "N W"] | None = None) -> dict[str, Tensor]:
        """Views of the tensors of one model, by name, in the matrix or in another of its shape, such as moments."""
        row, own = (self.values.detach() if of is None else of)[number], self._own[number]
        parts = dict(zip(self._pieces, row.split(self._sizes), strict=True))
        found = {name: parts[name, shape].view(shape) for name, shape in own.items()}
        return {**found, PROMPT: found[PROMPT][-self.lengths[number] :]}

    @contextmanager
    def opened(self, models: Sequence[int] | None) -> Iterator[None]:
        """Pick the tensors of G blocks for one pass. None: a block for each of the N models, in their order."""
        self._models = None if models is None else copied(torch.tensor(models), self.values.device)
        values = self.of_blocks(self.values)
        self.num_blocks = len(values)
        self.prompt_length = max(self.lengths if models is None else [self.lengths[model] for model in models])
        parts = values.split(self._sizes, dim=1)
        self._picked = {piece: part.unflatten(1, piece[1]) for piece, part in zip(self._pieces, parts, strict=True)}
        try:
            yield
        finally:
            self._picked, self._models, self.num_blocks, self.prompt_length = {}, None, 0, 0

    def picked(self, name: str, shape: torch.Size) -> Float[Tensor, "G ..."]:
        """A tensor of every block. Raises RuntimeError outside of a pass."""
        if not self._picked:
            raise RuntimeError("the backbone was called outside its GroupedModel, so its rows belong to no model")
        return self._picked[name, shape]

    def of_blocks(self, values: Tensor) -> Tensor:
        """(N, ...) to (G, ...): what belongs to the model of each block."""
        return values if self._models is None else values.index_select(0, self._models)

    def blocks(self, x: Float[Tensor, "B *S C"]) -> Float[Tensor, "G M C"]:
        """The rows and positions of each block, M in all."""
        return x.reshape(self.num_blocks, -1, x.shape[-1])


def _padded_left(prompt: Float[Tensor, "P D"], length: int) -> Float[Tensor, "Q D"]:
    return F.pad(prompt, (0, 0, length - len(prompt), 0))
