"""The settings of a TRL run under the names that every Trajectory has."""

import importlib.metadata
from pathlib import Path
from typing import Any

_USUAL = {"weight_decay": 0.0, "momentum": 0.0, "nesterov": False, "betas": (0.9, 0.999), "eps": 1e-8}
"""Settings of optimizers that go without saying."""


def resolved_settings(trainer: Any, *, objective: str | None, reference: str, schedule_given: bool) -> dict[str, Any]:
    """What a DPOTrainer was told, flat and plain.

    Args:
        trainer: A DPOTrainer; `steps` are those it has made.
        objective: Name of the loss; None: TRL's own name.
        reference: What margins are taken against.
        schedule_given: Whether the learning rate follows a scheduler of the user.
    """
    args, optimizer = trainer.args, getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    first = {} if optimizer is None else optimizer.param_groups[0]
    found: dict[str, Any] = {
        "tune": _tune(trainer.model),
        "objective": objective or "+".join(trainer.loss_types),
        "beta": float(trainer.beta),
        "optimizer": args.optim.value if optimizer is None else type(optimizer).__name__.lower(),
        "learning_rate": float(first.get("initial_lr", first.get("lr", args.learning_rate))),
        "learning_rate_rule": "given",
        "schedule": "given" if schedule_given else args.lr_scheduler_type.value,
        "warmup": args.get_warmup_steps(trainer.state.max_steps or 0),
        "steps": trainer.state.global_step,
        "batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "scheme": "epochs",
        "accumulate": args.gradient_accumulation_steps,
        "clip": args.max_grad_norm or None,
        "precision": "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32",
        "gradient_checkpointing": bool(args.gradient_checkpointing),
        "seed": args.seed,
        "max_length": args.max_length,
        "reference": reference,
        "window": args.logging_steps if args.logging_strategy.value == "steps" else args.logging_strategy.value,
        "trainer": f"TRL {importlib.metadata.version('trl')}",
    }
    if len(trainer.loss_types) > 1:
        found["loss_weights"] = list(trainer.loss_weights)
    if trainer.label_smoothing and objective == "robust":
        found["label_smoothing"] = trainer.label_smoothing
    if objective is None:
        found["f_divergence_type"] = trainer.f_divergence_type
    found |= {name: first[name] for name, usual in _USUAL.items() if name in first and first[name] != usual}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def model_name(model: Any) -> str:
    """Hub id of a model, or the name of its folder."""
    name = str(getattr(model.config, "_name_or_path", ""))
    return Path(name).name if Path(name).is_dir() else name


def further_versions() -> dict[str, str]:
    """Versions of what drives the training, by library."""
    return {name: importlib.metadata.version(name) for name in ("trl", "accelerate", "peft")}


def _tune(model: Any) -> str:
    """`lora` or another kind of adapter, `full`, or `part`: what of a model is trained."""
    adapters = getattr(model, "peft_config", None)
    if adapters:
        return str(next(iter(adapters.values())).peft_type.value).lower()
    return "full" if all(each.requires_grad for each in model.parameters()) else "part"
