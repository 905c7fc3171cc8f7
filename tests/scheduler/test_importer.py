import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests import models
from tunewright.core.errors import ModelImportError
from tunewright.core.types import TargetSpec, TensorSpec
from tunewright.scheduler import onnx_prepare
from tunewright.scheduler.importer import import_model

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

TARGET = TargetSpec("x86-64-v3", num_threads=1)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def sequence_net(path: Path) -> Path:
    value = helper.make_tensor_sequence_value_info("items", TensorProto.FLOAT, [2])
    node = helper.make_node("SequenceAt", ["items", "index"], ["y"])
    index = onnx.numpy_helper.from_array(np.array(0, dtype=np.int64), "index")
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    onnx.save(helper.make_model(helper.make_graph([node], "g", [value], [output], [index])), path)
    return path


def without_external_data(path: Path) -> Path:
    model = onnx.load(models.dense_net(path.with_name("inline.onnx")))
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    path.with_name("weights.bin").unlink()
    return path


BAD_FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda path: path, "does not exist"),
    "directory": (lambda path: path.parent, "is a directory"),
    "text": (lambda path: write(path, b"not an ONNX file at all\n"), "is not an ONNX file or is cut off"),
    "empty": (lambda path: write(path, b""), "holds no ONNX graph"),
    "truncated": (
        lambda path: write(path, models.residual_net(path).read_bytes()[:-100]),
        "is not an ONNX file or is cut off",
    ),
    "no weights": (without_external_data, r"weight 'w1' in .*weights.bin, which does not exist"),
    "free dimension": (
        lambda path: models.residual_net(path, batch="N"),
        r"input 'image' has the free dimension N in \[N, 3, 12, 12\].*--input-shape image:1,3,12,12",
    ),
    "unsupported": (models.unsupported_net, r"operator Frobnicate \(node the_culprit\) is not supported"),
    "dynamic": (models.data_dependent_net, "what nonzero computes depends on the data"),
    "sequence": (sequence_net, "input 'items' is a sequence_type, not a tensor"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_ends_with_one_sentence_that_says_what_to_do(name: str, tmp_path: Path) -> None:
    make, expected = BAD_FILES[name]
    path = make(tmp_path / "model.onnx")
    with pytest.raises(ModelImportError, match=expected) as caught:
        import_model(path, target=TARGET)
    message = str(caught.value)
    assert "\n" not in message and ";" in message  # fact; remedy


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"picture": (1, 3, 12, 12)}, "names 'picture', but the model's inputs are 'image'"),
        ({"image": (1, 3, 12)}, r"has 3 dimensions, but the input has 4: \[N, 3, 12, 12\]"),
        ({"image": (1, 4, 12, 12)}, r"contradicts the model's \[N, 3, 12, 12\]"),
        ({"image": (0, 3, 12, 12)}, "at least 1"),
    ],
)
def test_a_wrong_binding_is_explained(
    shapes: dict[str, tuple[int, ...]], expected: str, tmp_path: Path
) -> None:
    path = models.residual_net(tmp_path / "m.onnx", batch="N")
    with pytest.raises(ModelImportError, match=expected):
        import_model(path, target=TARGET, input_shapes=shapes)


def test_a_bound_dimension_reaches_the_outputs(tmp_path: Path) -> None:
    path = models.residual_net(tmp_path / "m.onnx", batch="N")
    model = import_model(path, target=TARGET, input_shapes={"image": (2, 3, 12, 12)})
    assert model.inputs == (("image", TensorSpec((2, 3, 12, 12), "float32")),)
    assert model.outputs == (("probabilities", TensorSpec((2, 10), "float32")),)


def test_the_models_own_names_and_dtypes_are_kept(tmp_path: Path) -> None:
    model = import_model(models.embedding_net(tmp_path / "m.onnx"), target=TARGET)
    assert model.inputs == (
        ("0.ids", TensorSpec((2, 5), "int64")),
        ("in/scale", TensorSpec((1,), "float32")),
    )
    assert [name for name, _ in model.outputs] == ["scaled/out", "total"]


def test_weights_stay_parameters_with_batch_norms_folded_in(tmp_path: Path) -> None:
    model = import_model(models.residual_net(tmp_path / "m.onnx"), target=TARGET)
    assert model.is_optimised
    assert len(model.params) == len(model.param_names)
    # Four convolutions with a bias each, one dense layer, one gain: no mean and no variance is left.
    assert len(model.params) == 4 * 2 + 2 + 1


def test_tvm_alone_imports_what_onnxruntime_refuses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model = import_model(models.foreign_domain_net(tmp_path / "m.onnx"), target=TARGET)
    assert not model.is_optimised
    assert "stays unoptimised" in caplog.text


def test_importing_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import_model(models.embedding_net(tmp_path / "m.onnx"), target=TARGET)
    with pytest.raises(ModelImportError):
        import_model(models.unsupported_net(tmp_path / "u.onnx"), target=TARGET)
    assert capfd.readouterr() == ("", "")


def test_a_model_of_an_old_format_with_weights_among_its_inputs(tmp_path: Path) -> None:
    path = models.dense_net(tmp_path / "m.onnx")
    proto = onnx.load(path)
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        proto.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )
    onnx.save(proto, path)
    assert [name for name, _ in import_model(path, target=TARGET).inputs] == ["x"]


def test_weights_beyond_protobufs_limit_travel_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = models.residual_net(tmp_path / "m.onnx")
    inline = import_model(path, target=TARGET)
    monkeypatch.setattr(onnx_prepare, "MAX_INLINE_BYTES", 0)
    external = import_model(path, target=TARGET)
    assert external.is_optimised
    weights = dict(zip(inline.param_names, inline.params, strict=True))
    assert set(external.param_names) == set(weights)
    for name, array in zip(external.param_names, external.params, strict=True):
        np.testing.assert_array_equal(array, weights[name])
