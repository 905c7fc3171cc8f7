import dataclasses
import json
import math
from pathlib import Path

import pytest

from tests.cost_model.trials import batch_of, features, learnable_set
from tunewright.core.errors import ConfigError
from tunewright.cost_model.model_file import ModelFile, read_model, write_model
from tunewright.cost_model.xgboost_model import XGBoostCostModel


@pytest.fixture(scope="module")
def model() -> ModelFile:
    snapshot = XGBoostCostModel(seed=0).fit(
        learnable_set(40, seed=1), metrics={"by_task_spearman": 0.5, "within_task_spearman": 0.25}
    )
    return ModelFile(snapshot, mcpu="skylake-avx512", num_tasks=1, num_failures=3)


def test_what_is_written_is_read(tmp_path: Path, model: ModelFile) -> None:
    path = tmp_path / "model.json"
    path.write_text("of before")
    write_model(path, model)
    assert read_model(path) == model
    assert list(tmp_path.iterdir()) == [path]
    unseen = batch_of([features(9)])
    loaded = XGBoostCostModel.from_snapshot(read_model(path).snapshot, seed=0)
    expected = XGBoostCostModel.from_snapshot(model.snapshot, seed=0)
    assert loaded.predict(unseen).score == expected.predict(unseen).score


def test_a_metric_that_is_not_finite_comes_back_as_nan(tmp_path: Path, model: ModelFile) -> None:
    snapshot = dataclasses.replace(model.snapshot, metrics={"a": math.nan, "b": 1.0})
    write_model(tmp_path / "m", dataclasses.replace(model, snapshot=snapshot))
    metrics = read_model(tmp_path / "m").snapshot.metrics
    assert math.isnan(metrics["a"]) and metrics["b"] == 1.0


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("format", "tunewright cost model 9", "is no cost model, or a damaged one"),
        ("booster_ubj", "AAAA", "do not have this digest"),
        ("booster_ubj", "%", "is no cost model, or a damaged one"),
        ("kind", "xgboost-logistic/old", "is of kind 'xgboost-logistic/old'.*train a new model"),
        ("feature_version", "old/0", "features 'old/0'.*train a new model"),
        ("trained_at", 3, "is no cost model, or a damaged one"),
        ("metrics", [], "is no cost model, or a damaged one"),
    ],
)
def test_refuses_what_it_cannot_use(
    tmp_path: Path, model: ModelFile, name: str, value: object, words: str
) -> None:
    path = tmp_path / "model.json"
    write_model(path, model)
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(ConfigError, match=words):
        read_model(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"{}", b"null", b'{"format": 1}'])
def test_refuses_files_of_others(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is no cost model"):
        read_model(path)


def test_says_what_is_wrong_with_the_place(tmp_path: Path, model: ModelFile) -> None:
    with pytest.raises(ConfigError, match=r"absent\.json cannot be read \(No such file"):
        read_model(tmp_path / "absent.json")
    with pytest.raises(ConfigError, match=r"cannot be written .* name another file"):
        write_model(tmp_path / "no" / "folder.json", model)
    with pytest.raises(ConfigError, match="cannot be written"):
        write_model(tmp_path, model)
