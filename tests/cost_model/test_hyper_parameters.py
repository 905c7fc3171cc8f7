import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.cost_model.trials import features, success, trial
from tunewright.core.errors import ConfigError
from tunewright.core.types import TaskKey
from tunewright.cost_model import make_training_set
from tunewright.cost_model.hyper_parameters import (
    DEFAULT,
    FORMAT,
    HyperParameters,
    read_hyper_parameters,
    write_hyper_parameters,
)
from tunewright.cost_model.xgboost_model import XGBoostCostModel


def test_what_was_written_is_read(tmp_path: Path) -> None:
    params = HyperParameters(num_rounds=20, max_depth=3, eta=0.3, subsample=0.5)
    write_hyper_parameters(tmp_path / "p.json", params, found={"study": "s", "held_out": None})
    assert read_hyper_parameters(tmp_path / "p.json") == params
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


def test_what_a_file_leaves_out_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"format": FORMAT, "params": {"eta": 1}}))
    assert asdict(read_hyper_parameters(path)) == {**asdict(DEFAULT), "eta": 1}


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"depth": 3}, "parameter 'depth' is unknown; known are num_rounds"),
        ({"max_depth": 3.5}, "max_depth is 3.5, expected a number of type int"),
        ({"max_depth": True}, "max_depth is True"),
        ({"eta": "fast"}, "eta is 'fast', expected a number of type float"),
        ({"eta": 0}, "eta is 0, expected 0.0001 to 1"),
        ({"eta": float("nan")}, "eta is nan"),
        ({"num_rounds": 10**9}, "num_rounds is 1000000000, expected 1 to 4096"),
        ([], "holds no parameters of a cost model"),
    ],
)
def test_wrong_values(tmp_path: Path, params: Any, words: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"format": FORMAT, "params": params}))
    with pytest.raises(ConfigError, match=words):
        read_hyper_parameters(path)


_OTHERS = ["", "[1]", "{}", '{"format": "other", "params": {}}', json.dumps({"format": FORMAT}), "\xff"]


@pytest.mark.parametrize("text", _OTHERS)
def test_other_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="holds no parameters of a cost model: name a file that"):
        read_hyper_parameters(path)


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_hyper_parameters(tmp_path / "absent.json")
    with pytest.raises(ConfigError, match="name another file"):
        write_hyper_parameters(tmp_path / "absent" / "p.json", DEFAULT, found={})


def test_parameters_reach_the_trees() -> None:
    trials = [
        trial(success(1e-3 * (1 + n)), task=TaskKey("t"), seed=n, rows=features(n, 1)) for n in range(40)
    ]
    training_set = make_training_set(trials)

    def size(params: HyperParameters) -> int:
        return len(XGBoostCostModel(seed=0, params=params).fit(training_set).booster_ubj)

    small = size(HyperParameters(num_rounds=4))
    assert size(HyperParameters(num_rounds=8)) > 1.5 * small
    assert size(HyperParameters(num_rounds=4, max_depth=1)) < small
    base = XGBoostCostModel(seed=0).fit(training_set)
    on_top = XGBoostCostModel.from_snapshot(base, seed=0, params=HyperParameters(num_rounds=4))
    full = XGBoostCostModel.from_snapshot(base, seed=0)
    assert (
        len(base.booster_ubj)
        < len(on_top.fit(training_set).booster_ubj)
        < len(full.fit(training_set).booster_ubj)
    )
