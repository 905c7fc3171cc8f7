"""The models, each from one line, as ONNX files in a cache directory. Weights are random, from a seed."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import numpy_helper

from tunewright.core.types import TensorSpec

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parent.parent
SEED = 0
_EXPORT_TIMEOUT_SECS = 600.0


@dataclass(frozen=True, slots=True)
class ZooModel:
    """A model by name. `recipe`: what it is, for people.

    `light`: its name among the light models of the onnx package; "" where PyTorch makes it.
    """

    name: str
    recipe: str
    light: str = ""

    @property
    def is_torch(self) -> bool:
        return not self.light


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """`recipe`: the file that tells a PyTorch process which model to make, None for others."""

    onnx: Path
    recipe: Path | None


class ZooError(RuntimeError):
    """A model cannot be made here."""


def _light(name: str) -> ZooModel:
    return ZooModel(f"light_{name}", f"the onnx package's light_{name}.onnx, 224 x 224", light=name)


ZOO: dict[str, ZooModel] = {
    model.name: model
    for model in (
        _light("squeezenet"),
        _light("shufflenet"),
        _light("resnet50"),
        _light("inception_v1"),
        _light("inception_v2"),
        _light("densenet121"),
        _light("bvlc_alexnet"),
        _light("zfnet512"),
        _light("vgg19"),
        ZooModel("mobilenet_v2", "MobileNet-V2, width 1.0, 224 x 224"),
        ZooModel("mobilenet_v3_large", "MobileNet-V3-large, 224 x 224"),
        ZooModel("efficientnet_b0", "EfficientNet-B0, 224 x 224"),
        ZooModel("unet", "U-Net of 4 levels, 32 to 256 channels, 256 x 256"),
        ZooModel("resnet18", "ResNet-18, 224 x 224"),
        ZooModel("resnet50", "ResNet-50 (v1.5), 224 x 224"),
        ZooModel(
            "bert_base", "transformers.BertModel, BertConfig(): 12 layers of 768, sequence 128, embedded"
        ),
        ZooModel("vit_small", "transformers.ViTModel: patch 16, 224 x 224, 12 layers of 384, 6 heads"),
        ZooModel("mlp", "dense 784-1024-1024-512-10 with ReLU"),
        ZooModel("lstm", "torch.nn.LSTM(128, 256), 64 steps"),
    )
}


def model_files(model: ZooModel, *, batch: int, cache: Path) -> ModelFiles:
    """The model's files, made where the cache has none of this version of the zoo.

    Raises:
        ZooError: PyTorch is needed and missing, or the export fails.
    """
    stem = f"{model.name}-b{batch}-{_version()}"
    path, recipe = cache / f"{stem}.onnx", cache / f"{stem}.json"
    cache.mkdir(parents=True, exist_ok=True)
    recipe.write_text(json.dumps({"model": model.name, "batch": batch, "seed": SEED}), encoding="utf-8")
    if not path.exists():
        draft = path.with_suffix(".part")
        if model.is_torch:
            _export(recipe, draft)
        else:
            _write_light(model, draft, batch=batch)
        os.replace(draft, path)
    return ModelFiles(path, recipe if model.is_torch else None)


def _version() -> str:
    """Of the recipes: another one makes other files."""
    sources = (_HERE / "zoo.py", _HERE / "torch_models.py", _ROOT / "scripts" / "random_weights.py")
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:8]


def _export(recipe: Path, target: Path) -> None:
    """In a process of its own: one that has loaded TVM must not load PyTorch, nor the other way round."""
    command = [sys.executable, "-m", "runtimes.torch_export", str(recipe), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_EXPORT_TIMEOUT_SECS, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise ZooError(f"PyTorch could not export {recipe.stem}: {reason[0]}")


def _write_light(model: ZooModel, target: Path, *, batch: int) -> None:
    from random_weights import light_model, randomise_weights

    randomise_weights(light_model(model.light), target, seed=SEED)
    if batch != 1:
        proto = onnx.load(target)
        set_batch(proto, batch)
        onnx.save(proto, target)


def input_specs(path: Path) -> list[tuple[str, TensorSpec]]:
    """Names, shapes and dtypes of a model's inputs, in order; weights that are inputs as well left out."""
    graph = onnx.load(path, load_external_data=False).graph
    weights = {weight.name for weight in graph.initializer}
    specs = []
    for value in graph.input:
        if value.name not in weights:
            tensor = value.type.tensor_type
            dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
            specs.append((value.name, TensorSpec(tuple(dim.dim_value for dim in tensor.shape.dim), dtype)))
    return specs


def set_batch(model: onnx.ModelProto, batch: int) -> None:
    """Give a model of batch 1 another one, in place: in inputs, outputs, and reshapes that begin with 1."""
    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    for value in (*graph.input, *graph.output):
        if value.name not in weights:
            value.type.tensor_type.shape.dim[0].dim_value = batch
    del graph.value_info[:]
    reshaped = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for name in reshaped & weights.keys():
        shape = numpy_helper.to_array(weights[name]).copy()
        if shape[0] == 1:
            shape[0] = batch
            weights[name].CopyFrom(numpy_helper.from_array(shape, name))
