"""What one of several processes does in the tests: train, and let the first write down what happened."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

torch.set_num_threads(1)


from prefdyn.maths.optimizers import SGD  # noqa: E402
from prefdyn.training import train  # noqa: E402
from prefdyn.training.loop import Processes  # noqa: E402
from prefdyn.training.settings import LoRA  # noqa: E402
from prefdyn.training.train import run_training  # noqa: E402
from tests.models.conftest import yes_no  # noqa: E402
from tests.training.test_whole_model import texts  # noqa: E402


def sharded(team: Any) -> Processes:
    """FSDP2 on CPUs, which accelerate itself offers on GPUs only; past this choice its code is the same."""
    from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin

    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
        reshard_after_forward=True, state_dict_type="FULL_STATE_DICT",
    )  # fmt: skip
    made = Accelerator(cpu=True)
    made.state.distributed_type = DistributedType.FSDP
    made.state.fsdp_plugin = plugin
    index, count = team.share
    return Processes(index=index, count=count, accelerator=made)


def main() -> None:
    """Arguments: model folder, output folder, kind of data, way to tune."""
    model, out, kind, tune = sys.argv[1:5]
    if os.environ.get("SHARDED") == "1":
        train._processes = sharded
    data = yes_no(13) if kind == "answers" else texts(13)
    found = run_training(
        data, model, tune=tune, optimizer=SGD(momentum=0.9), learning_rate=0.02, batch_size=5, accumulate=2, steps=7,
        checkpoint_every=3, clip=0.5, device="cpu", out=Path(out), lora=LoRA(rank=4) if tune == "lora" else None,
        resume=os.environ.get("RESUME") == "1",
    )  # fmt: skip
    if os.environ.get("RANK", "0") == "0":
        last = found.trajectory.table.to_pylist()
        told = {"steps": found.steps.to_pylist(), "rows": last, "chosen": found.chosen.tolist()}
        (Path(out) / "found.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
