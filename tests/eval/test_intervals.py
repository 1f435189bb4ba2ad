import numpy as np
import pytest
from scipy import stats

from omniloom.errors import DataError
from omniloom.eval import chance_band, cluster_bootstrap, holm, mcnemar, wilson


@pytest.mark.parametrize("level", [0.95, 0.99])
@pytest.mark.parametrize(("correct", "n"), [(0, 5), (1, 1), (7, 12), (60, 120), (120, 120), (299, 300)])
def test_wilson_equals_scipy(correct: int, n: int, level: float) -> None:
    expected = stats.binomtest(correct, n).proportion_ci(level, method="wilson")
    assert wilson(correct, n, level=level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_is_not_degenerate_at_the_ends() -> None:
    assert wilson(0, 10).low == 0.0 and 0.25 < wilson(0, 10).high < 0.31
    assert wilson(10, 10).high == 1.0 and 0.69 < wilson(10, 10).low < 0.75


def test_wilson_covers_its_level() -> None:
    # Average coverage over many true shares; a CLT interval would fall to 0.92 here.
    rng = np.random.default_rng(0)
    shares = rng.uniform(0.02, 0.98, 4000)
    intervals = [wilson(int(rng.binomial(60, share)), 60) for share in shares]
    covered = np.mean([low <= share <= high for share, (low, high) in zip(shares, intervals, strict=True)])
    assert 0.94 < covered < 0.965


@pytest.mark.parametrize(("chance", "n"), [(0.1, 100), (0.5, 300), (1 / 3, 47), (0.02, 1000), (0.0, 9), (1.0, 9)])
def test_chance_band_equals_scipys_exact_binomial(chance: float, n: int) -> None:
    low, high = stats.binom.interval(0.99, n, chance)
    assert chance_band(chance, n) == pytest.approx((low / n, high / n))


def test_guessing_leaves_the_chance_band_in_at_most_one_of_a_hundred_runs() -> None:
    band = chance_band(0.25, 120)
    scores = np.random.default_rng(1).binomial(120, 0.25, 20_000) / 120
    assert np.mean((scores < band.low) | (scores > band.high)) <= 0.01


def test_cluster_bootstrap_of_single_items_agrees_with_the_normal_interval() -> None:
    values = (np.random.default_rng(2).random(400) < 0.7).astype(float)
    low, high = cluster_bootstrap(values, list(range(400)), resamples=8000)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.006)


def test_cluster_bootstrap_of_identical_items_in_a_group_is_as_wide_as_the_groups_are_few() -> None:
    per_group = (np.random.default_rng(3).random(40) < 0.6).astype(float)
    repeated = np.repeat(per_group, 10)
    wide = cluster_bootstrap(repeated, [k // 10 for k in range(400)])
    narrow = cluster_bootstrap(repeated, list(range(400)))
    assert wide.high - wide.low > 2.5 * (narrow.high - narrow.low)


def test_cluster_bootstrap_repeats_with_its_seed() -> None:
    values, groups = [1, 0, 1, 1, 0, 0], ["a", "a", "b", "b", "c", "d"]
    assert cluster_bootstrap(values, groups, seed=4) == cluster_bootstrap(values, groups, seed=4)


def test_mcnemar_equals_the_exact_binomial_test() -> None:
    a = [True] * 15 + [False] * 4 + [True] * 30 + [False] * 11
    b = [False] * 15 + [True] * 4 + [True] * 30 + [False] * 11
    result = mcnemar(a, b)
    assert (result.only_a, result.only_b) == (15, 4)
    assert result.p == pytest.approx(stats.binomtest(4, 19, 0.5).pvalue, rel=1e-12)
    assert result.mid_p == pytest.approx(result.p - stats.binom.pmf(4, 19, 0.5), rel=1e-12)


def test_mcnemar_of_equal_answers_is_one() -> None:
    assert mcnemar([True, False], [True, False]).p == 1.0
    assert mcnemar([True, False], [False, True]).p == 1.0


def test_mcnemar_does_not_underflow_for_a_clear_difference() -> None:
    assert 0 < mcnemar([True] * 600, [False] * 600).p < 1e-100


def test_mcnemar_rejects_too_seldom_rather_than_too_often_under_equal_models() -> None:
    rng = np.random.default_rng(5)
    answers = rng.random((1500, 2, 80)) < 0.6
    assert np.mean([mcnemar(list(a), list(b)).p < 0.05 for a, b in answers]) <= 0.05


def test_holm_is_the_step_down_correction_worked_by_hand() -> None:
    # 4 * 0.005 = 0.02; 3 * 0.01 = 0.03; 2 * 0.03 = 0.06; 1 * 0.04 is raised to the running 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize(
    "call",
    [
        lambda: wilson(3, 2),
        lambda: wilson(0, 0),
        lambda: wilson(1, 2, level=95),
        lambda: chance_band(1.5, 10),
        lambda: cluster_bootstrap([1, 0], ["a", "a"]),
        lambda: cluster_bootstrap([1, 0], ["a"]),
        lambda: mcnemar([True], [True, False]),
    ],
)
def test_counts_that_cannot_be_are_refused(call) -> None:
    with pytest.raises(DataError):
        call()
