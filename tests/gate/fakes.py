"""A machine that is made up, behind the same interface as the real one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tunewright.core.types import MachineInfo
from tunewright.gate.measure import ModelPair, Pair
from tunewright.gate.model_timer import SideProblem
from tunewright.gate.statistics import PairGroup

HERE = MachineInfo("This CPU", 4, False, "performance", "6.1", "0.27.0.post1", "0.1.14.post1", "22")


def pair(name: str) -> ModelPair:
    return ModelPair(name, Path("base") / name, Path("head") / name)


@dataclass
class FakeTimer:
    """`effects`: head takes 1 + so much times as long, by name; "broken" items do not run.

    `fades`: effects that are there in the first pairs only. `log` holds (name, pairs) of all groups.
    """

    effects: Mapping[str, float]
    cv: float = 0.005
    broken: frozenset[str] = frozenset()
    fades: frozenset[str] = frozenset()
    log: list[tuple[str, int]] = field(default_factory=list)

    def time_pairs(self, pair: Pair, *, num_pairs: int, rng: np.random.Generator) -> PairGroup:
        if pair.name in self.broken:
            raise SideProblem(f"head: {pair.name} crashed")
        seen = sum(num for name, num in self.log if name == pair.name)
        self.log.append((pair.name, num_pairs))
        effect = self.effects.get(pair.name, 0.0)
        if pair.name in self.fades and seen >= 15:
            effect = 0.0
        base, head = 0.01 * np.exp(rng.normal(0, self.cv, (2, num_pairs)))
        return PairGroup(tuple(map(float, base)), tuple(map(float, (1 + effect) * head)))
