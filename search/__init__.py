"""Policy: what to try next. Strategies see candidates, records and predictions; never a store or a worker."""

from tunewright.search.evolutionary import EvolutionaryConfig, EvolutionarySearch
from tunewright.search.genetic import GeneticSearch
from tunewright.search.population import EvolutionConfig
from tunewright.search.prior import Hardware
from tunewright.search.random import RandomSearch
from tunewright.search.space import DesignSpace
from tunewright.search.stopping import is_stalled
from tunewright.search.strategy import CostModel, DraftModel, Proposal, SearchStrategy

__all__ = [
    "CostModel",
    "DesignSpace",
    "DraftModel",
    "EvolutionConfig",
    "EvolutionaryConfig",
    "EvolutionarySearch",
    "GeneticSearch",
    "Hardware",
    "Proposal",
    "RandomSearch",
    "SearchStrategy",
    "is_stalled",
]
