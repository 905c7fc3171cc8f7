"""PyTorch as contestants of a model benchmark; either function runs in its contestant's own process."""

import json
from collections.abc import Callable
from pathlib import Path

import torch

from runtimes.torch_models import make_torch_model
from tunewright.scheduler.bench_child import Array, Feed, Runner


def make_eager(recipe: Path, num_threads: int) -> Runner:
    """Eager mode as users run it: oneDNN where PyTorch chooses it."""
    return _runner(_model(recipe, num_threads))


def make_compiled(recipe: Path, num_threads: int) -> Runner:
    """torch.compile with inductor; weights are constants, as inductor wants it for inference on CPUs."""
    model = _model(recipe, num_threads)
    return _runner(torch.compile(model, dynamic=False, options={"freezing": True}))


def _model(recipe: Path, num_threads: int) -> torch.nn.Module:
    torch.set_num_threads(num_threads)
    fields = json.loads(recipe.read_text(encoding="utf-8"))
    return make_torch_model(fields["model"], seed=fields["seed"])


def _runner(model: Callable[..., torch.Tensor]) -> Runner:
    @torch.inference_mode()
    def run(feed: Feed) -> list[Array]:
        return [model(*(torch.from_numpy(array) for array in feed.values())).numpy()]

    return run
