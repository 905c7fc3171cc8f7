"""Write a PyTorch model of the zoo as ONNX: `python -m runtimes.torch_export RECIPE.json OUT.onnx`."""

import json
import sys
import warnings
from pathlib import Path

import torch

from runtimes.torch_models import input_shape, make_torch_model


def main(recipe: Path, target: Path) -> None:
    fields = json.loads(recipe.read_text(encoding="utf-8"))
    model = make_torch_model(fields["model"], seed=fields["seed"])
    example = torch.zeros(input_shape(fields["model"], batch=fields["batch"]))
    warnings.filterwarnings("ignore")  # of the older exporter, which needs no further package
    torch.onnx.export(
        model,
        (example,),
        str(target),
        input_names=["input"],
        output_names=["output"],
        opset_version=17,
        dynamo=False,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
