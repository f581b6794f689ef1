"""Adapters sit on every linear layer on which they count, and on no other; what is left off is told."""

import pytest
import torch

from prefdyn.models.load import load_model
from prefdyn.training.adaptable import told_of_adapters, unadaptable
from prefdyn.training.settings import LoRA
from prefdyn.training.train import run_training
from prefdyn.training.tune import add_adapters
from scripts.architectures import make
from tests.models.conftest import yes_no

LEFT_OFF = {
    "mamba": {"x_proj", "dt_proj", "out_proj"},
    "falcon-h1": {"out_proj"},
    "jamba": {"dt_proj"},
    "phimoe": {"router"},
    "llama4": {"router"},
    "bloom": set(),
    "falcon": set(),
    "gpt2": set(),
}
"""Of a kind: last names of the layers that no adapter can sit on."""


@pytest.mark.parametrize("kind", LEFT_OFF)
def test_layers_that_cannot_carry_an_adapter_are_known_by_what_they_do(kind, tmp_path):
    make(kind, tmp_path)
    lm = load_model(str(tmp_path))
    found = unadaptable(lm.model)
    assert {name.rpartition(".")[2] for name in found} == LEFT_OFF[kind]
    add_adapters(lm, LoRA(rank=2), seed=0)
    adapted = {name.rpartition(".")[2] for name, part in lm.model.named_modules() if hasattr(part, "lora_A")}
    assert adapted
    assert not adapted & LEFT_OFF[kind]
    lm.model(input_ids=torch.arange(40)[None]).logits.sum().backward()
    late = {name for name, each in lm.model.named_parameters() if "lora_B" in name and each.grad is None}
    assert not {name for name in late if "expert" not in name}  # every adapter takes part


def test_an_adapter_on_a_bypassed_weight_would_count_for_nothing(tmp_path):
    """The layer is there and takes an adapter, but no gradient ever reaches it: why it is left off."""
    make("mamba", tmp_path)
    lm = load_model(str(tmp_path))
    add_adapters(lm, LoRA(rank=2, targets=("dt_proj", "in_proj")), seed=0)
    lm.model(input_ids=torch.arange(40)[None]).logits.sum().backward()
    reached = {
        name.split(".")[-4]: each.grad is not None for name, each in lm.model.named_parameters() if "lora_B" in name
    }
    assert reached == {"dt_proj": False, "in_proj": True}


def test_what_is_left_off_is_told_and_a_target_asked_for_by_name_doubted(tmp_path):
    make("mamba", tmp_path)
    left_off = "Adapters are left off dt_proj, out_proj, x_proj: MambaMixer takes the weight without calling the layer."
    run = run_training(yes_no(4), str(tmp_path), tune="lora", steps=1, learning_rate=0.01, batch_size="full")
    assert left_off in run.warnings
    asked = run_training(
        yes_no(4), str(tmp_path), tune="lora", steps=1, learning_rate=0.01, batch_size="full",
        lora=LoRA(targets=("in_proj", "x_proj")),
    )  # fmt: skip
    assert [line for line in asked.warnings if "dapters" in line] == [
        "Adapters may not count on x_proj: MambaMixer takes the weight without calling the layer."
    ]
    assert told_of_adapters({}) == []


def test_a_linear_layer_of_a_class_of_its_own_is_told_by_what_it_gives():
    class Transposed(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return input @ self.weight.T + self.bias

    class Scaled(Transposed):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    class Folded(Transposed):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input.abs())

    class Picky(Transposed):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("three dimensions, please")

    model = torch.nn.Module()
    for kind in (torch.nn.Linear, Transposed, Scaled, Folded, Picky):
        model.add_module(kind.__name__, kind(5, 3))
    assert unadaptable(model) == {
        "Scaled": "Scaled gives more than a linear layer does",
        "Folded": "Folded gives more than a linear layer does",
        "Picky": "Picky gives more than a linear layer does",
    }
