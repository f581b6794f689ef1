"""One run of the TRL plug-in, on one process or several: python tests/training/trl_run.py MODEL OUT BATCH WAY.

The training set fills its batches; the evaluation sets do not.
"""

# pyright: reportPrivateImportUsage=false
# (TRL loads its public names on first use, where a type checker does not see them)

import json
import sys
import warnings
from pathlib import Path

import datasets

from tests.training.test_trl import BETA, RANKED, as_set, logs, pairs, plug_in


def main(model: str, out: Path, per_process: int, way: str) -> None:
    """Train, evaluate two sets, save, and do it again from the middle."""
    from trl import DPOConfig

    datasets.disable_progress_bars()
    warnings.simplefilter("ignore", FutureWarning)
    args = DPOConfig(
        output_dir=str(out / "trainer"), per_device_train_batch_size=per_process,
        per_device_eval_batch_size=per_process, learning_rate=1e-2, beta=BETA, max_steps=6,
        logging_steps=2, eval_strategy="steps", eval_steps=2,
        save_strategy="steps", save_steps=3, report_to="none", use_cpu=True, bf16=False, disable_tqdm=True,
        gradient_checkpointing=False, dataloader_pin_memory=False,
    )  # fmt: skip
    options = RANKED[way]()
    trainer = plug_in()(
        model=model,
        args=args,
        train_dataset=as_set(pairs(16)),
        eval_dataset={"near": as_set(pairs(11, seed=1)), "far": as_set(pairs(3, seed=2))},
        **options,
    )
    trainer.train()
    trainer.save_trajectory(out / "run")
    trainer.train(resume_from_checkpoint=str(out / "trainer" / "checkpoint-3"))
    trainer.save_trajectory(out / "resumed")
    rank = trainer.accelerator.process_index
    (out / f"logs-{rank}.json").write_text(json.dumps(logs(trainer)))
    (out / f"step-{rank}.json").write_text(json.dumps(trainer.trajectory().rows()))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
