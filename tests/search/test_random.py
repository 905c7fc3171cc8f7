from tests.search.landscapes import gemm_landscape, measure_all
from tunewright.core.types import Origin
from tunewright.search import RandomSearch


def test_a_resumed_search_proposes_exactly_what_the_killed_one_would_have() -> None:
    landscape = gemm_landscape()
    killed, resumed = RandomSearch(landscape, seed=3), RandomSearch(landscape, seed=3)
    trials = measure_all(landscape, [p.applied for p in killed.ask(16)], first_index=0)
    for strategy in (killed, resumed):
        strategy.tell(trials)
    expected = [p.applied.candidate for p in killed.ask(16)]
    assert [p.applied.candidate for p in resumed.ask(16)] == expected


def test_candidates_are_random_and_carry_no_score() -> None:
    proposals = RandomSearch(gemm_landscape(), seed=0).ask(16)
    assert {p.applied.candidate.origin for p in proposals} == {Origin.RANDOM}
    assert {p.score for p in proposals} == {None}


def test_no_more_is_applied_than_asked_for_in_a_large_space() -> None:
    landscape = gemm_landscape()
    RandomSearch(landscape, seed=0).ask(32)
    assert landscape.num_applied == 32
