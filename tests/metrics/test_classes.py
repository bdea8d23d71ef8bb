import math

import numpy as np
import pytest
import scipy.stats
import torch
from jaxtyping import TypeCheckError

from collapse_bench.errors import ConfigError, MetricError
from collapse_bench.metrics.classes import ClassShares, Confidence, Entanglement, LabelAgreement
from collapse_bench.metrics.functional.classes import (
    calibration_error,
    class_counts,
    class_entropy,
    class_g_test,
    class_kl,
    expected_class_kl,
    num_classes_covered,
    num_correct,
    num_entangled,
)
from collapse_bench.metrics.functional.intervals import normal_interval, wilson_interval
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.pool import UNLABELLED


def scored(metric, generated, reference=None):
    """The estimates of a metric for images given by their columns."""
    if reference is not None:
        metric.update(ImageSet(**reference), side="reference")
    metric.update(ImageSet(**generated), side="generated")
    return metric.compute()


def random_probabilities(rng, num_images, num_classes=4):
    return (3 * torch.randn(num_images, num_classes, generator=rng, dtype=torch.float64)).softmax(1)


def test_class_counts_are_those_of_the_most_probable_class():
    probabilities = torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.8, 0.1], [0.9, 0.1, 0.0]])
    assert class_counts(probabilities).tolist() == [1, 2, 0]


def test_class_kl_equals_that_of_scipy(rng):
    generated, reference = torch.randint(1, 100, (2, 10), generator=rng)
    expected = scipy.stats.entropy(generated.numpy(), reference.numpy())
    assert class_kl(generated, reference) == pytest.approx(expected, rel=1e-12)


def test_class_kl_of_lost_classes_is_the_log_of_what_is_left():
    assert class_kl(torch.tensor([7, 0, 0, 0]), torch.tensor([5, 5, 5, 5])) == pytest.approx(math.log(4))


def test_class_kl_is_infinite_where_the_reference_lacks_a_generated_class():
    assert class_kl(torch.tensor([3, 1]), torch.tensor([4, 0])) == math.inf
    assert class_kl(torch.tensor([3, 0]), torch.tensor([4, 0])) == 0


def multinomial(shares, num_images, rng):
    return torch.multinomial(shares, num_images, replacement=True, generator=rng).bincount(minlength=len(shares))


def test_class_kl_is_chi_square_against_known_shares(rng):
    shares = torch.tensor([0.3, 0.25, 0.2, 0.15, 0.1])
    known, num_images, num_repeats = (shares * 10**9).long(), 2000, 2000
    statistics = [2 * num_images * class_kl(multinomial(shares, num_images, rng), known) for _ in range(num_repeats)]
    assert scipy.stats.kstest(statistics, scipy.stats.chi2(4).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("n", "m"), [(1000, 500), (250, 250)])
def test_class_kl_against_a_finite_reference_has_the_expected_mean(rng, n, m):
    shares = torch.full((5,), 0.2)
    references = [multinomial(shares, m, rng) for _ in range(2000)]
    draws = torch.tensor([class_kl(multinomial(shares, n, rng), reference) for reference in references])
    expected = expected_class_kl(references[0], n)
    assert expected == pytest.approx(4 / 2 * (1 / n + 1 / m))
    # The next order, k^2 (1/n^2 + 5/m^2) / 12, is 2.5 % of the mean at most.
    next_order = 25 / 12 * (1 / n**2 + 5 / m**2)
    assert draws.mean().item() == pytest.approx(expected + next_order, abs=4 * draws.std().item() / 2000**0.5)


def test_class_kl_has_no_expected_mean_where_the_reference_lacks_a_class():
    assert expected_class_kl(torch.tensor([5, 0, 3]), 100) is None


def test_class_entropy_equals_that_of_scipy(rng):
    counts = torch.randint(100, (10,), generator=rng)
    assert class_entropy(counts) == pytest.approx(scipy.stats.entropy(counts.numpy()), rel=1e-12)
    assert class_entropy(torch.tensor([0, 7, 0])) == 0
    assert class_entropy(torch.tensor([3, 3, 3])) == pytest.approx(math.log(3))


def test_g_test_equals_that_of_scipy(rng):
    generated, reference = torch.randint(1, 60, (2, 8), generator=rng)
    expected = scipy.stats.chi2_contingency(
        np.stack([generated, reference]), correction=False, lambda_="log-likelihood"
    )
    statistic, _, p_value = class_g_test(generated, reference)
    assert statistic == pytest.approx(expected.statistic, rel=1e-10)
    assert p_value == pytest.approx(expected.pvalue, rel=1e-8)


def test_g_test_leaves_out_classes_that_do_not_occur():
    both = torch.tensor([5, 0, 9]), torch.tensor([7, 0, 2])
    assert class_g_test(*both) == class_g_test(torch.tensor([5, 9]), torch.tensor([7, 2]))
    assert class_g_test(torch.tensor([4, 0]), torch.tensor([9, 0])) == (0, 0, 1)
    assert class_g_test(torch.tensor([4, 0]), torch.tensor([0, 9])).p_value < 1e-3


def test_g_test_rejects_equal_shares_as_often_as_it_says(rng):
    shares, num_repeats = torch.tensor([0.4, 0.3, 0.2, 0.1]), 2000
    p_values = [
        class_g_test(multinomial(shares, 600, rng), multinomial(shares, 300, rng)).p_value for _ in range(num_repeats)
    ]
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 1e-3


def test_classes_are_covered_from_a_part_of_their_reference_share_on():
    reference = torch.tensor([500, 300, 200, 0])
    generated = torch.tensor([970, 30, 0, 0])
    assert num_classes_covered(generated, reference, 0.1) == 2
    assert num_classes_covered(generated, reference, 0.11) == 1
    assert num_classes_covered(reference, reference, 1.0) == 3


@pytest.mark.parametrize(("count", "total"), [(0, 1), (0, 450), (1, 450), (45, 450), (449, 450), (450, 450)])
def test_wilson_interval_equals_that_of_scipy(count, total):
    expected = scipy.stats.binomtest(count, total).proportion_ci(method="wilson")
    assert wilson_interval(count, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_normal_interval_has_95_percent():
    assert normal_interval(2.0, 0.5) == pytest.approx(scipy.stats.norm(2.0, 0.5).interval(0.95))


def test_entangled_images_have_two_classes_within_the_margin():
    # The two highest differ by 0, 0.6, exactly 0.5 and 0.8.
    probabilities = torch.tensor([[0.5, 0.5, 0.0], [0.75, 0.15, 0.1], [0.75, 0.25, 0.0], [0.1, 0.0, 0.9]])
    assert num_entangled(probabilities, 0.5) == 1
    assert num_entangled(probabilities, 0.51) == 2
    assert num_entangled(probabilities, 0.7) == 3
    assert num_entangled(probabilities, 1.0) == 4


def test_calibration_error_by_hand():
    # Bins of a quarter: confidences 0.6 and 0.7 with one right, 0.8 and 1.0 with both right.
    first = torch.tensor([0.6, 0.7, 0.8, 1.0]).double()
    probabilities, labels = torch.stack([first, 1 - first], 1), torch.tensor([0, 1, 0, 0])
    expected = (2 * abs(0.5 - 0.65) + 2 * abs(1.0 - 0.9)) / 4
    # torchmetrics works in float32.
    assert calibration_error(probabilities, labels, 4) == pytest.approx(expected, abs=1e-6)


def test_a_confidence_of_1_is_in_the_last_bin():
    # Half are certain and right in 9 of 10, half say 0.95 and are all right: |0.95 - 0.975| in one bin.
    first = torch.tensor([1.0] * 10 + [0.95] * 10).double()
    probabilities, labels = torch.stack([first, 1 - first], 1), torch.tensor([1] + [0] * 19)
    assert calibration_error(probabilities, labels) == pytest.approx(0.025, abs=1e-6)


def test_calibration_error_equals_its_definition_in_numpy(rng):
    probabilities, labels = random_probabilities(rng, 500), torch.randint(4, (500,), generator=rng)
    confidence, right = probabilities.amax(1).numpy(), (probabilities.argmax(1) == labels).numpy()
    bins = np.minimum((confidence * 15).astype(int), 14)
    expected = sum(
        abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)
    )
    assert calibration_error(probabilities, labels) == pytest.approx(expected, abs=1e-6)


def test_a_calibrated_classifier_has_a_small_calibration_error(rng):
    probabilities = random_probabilities(rng, 20_000)
    labels = torch.multinomial(probabilities, 1, generator=rng).flatten()
    # Each of 15 bins adds its share times sqrt(2 / pi) standard errors of at most 1/2 / sqrt(n_b).
    assert calibration_error(probabilities, labels) < math.sqrt(15 / 20_000) / 2
    assert calibration_error(probabilities, (probabilities.argmax(1) + 1) % 4) > 0.5


def test_class_shares_are_counts_over_images_and_the_lowest_is_one_of_them():
    generated, reference = torch.eye(3)[[0, 0, 0, 2]], torch.eye(3)
    scores = scored(ClassShares(), {"probabilities": generated}, {"probabilities": reference})
    assert [scores[f"class_share_{index}"].value for index in range(3)] == [0.75, 0, 0.25]
    assert scores["lowest_class_share"].value == 0
    assert scores["lowest_class_share"][2:] == scores["class_share_1"][2:]
    assert scores["num_classes_covered"].value == 2
    assert scores["class_entropy"].value == pytest.approx(scipy.stats.entropy([0.75, 0.25]))
    assert scores["class_kl"].null == pytest.approx(1 / 4 + 1 / 3)


def test_confidence_is_the_mean_highest_probability_with_its_standard_error(rng):
    probabilities = random_probabilities(rng, 120)
    estimate = scored(Confidence(), {"probabilities": probabilities})["confidence"]
    highest = probabilities.amax(1)
    expected = scipy.stats.norm(highest.mean().item(), scipy.stats.sem(highest)).interval(0.95)
    assert estimate.value == pytest.approx(highest.mean().item())
    assert (estimate.low, estimate.high) == pytest.approx(expected, rel=1e-9)


def test_entanglement_is_a_share_with_a_wilson_interval(rng):
    probabilities = random_probabilities(rng, 80)
    estimate = scored(Entanglement(margin=0.5), {"probabilities": probabilities})["entanglement"]
    count = num_entangled(probabilities, 0.5)
    assert 0 < count < 80
    assert estimate[0] == count / 80
    assert estimate[2:4] == wilson_interval(count, 80)


def test_label_agreement_compares_the_predictions_with_the_conditions(rng):
    columns = {"probabilities": random_probabilities(rng, 60), "labels": torch.randint(4, (60,), generator=rng)}
    scores = scored(LabelAgreement(num_bins=10), columns)
    count = num_correct(**columns)
    assert count == (columns["probabilities"].argmax(1) == columns["labels"]).sum()
    assert scores["label_accuracy"][:4] == (count / 60, "floor", *wilson_interval(count, 60))
    expected = calibration_error(**columns, num_bins=10)
    assert scores["calibration_error"].value == pytest.approx(expected, abs=1e-6)


def test_label_agreement_is_not_defined_for_images_without_conditions(rng):
    columns = {"probabilities": random_probabilities(rng, 5), "labels": torch.full((5,), UNLABELLED)}
    scores = scored(LabelAgreement(), columns)
    assert all(math.isnan(scores[name].value) for name in ("label_accuracy", "calibration_error"))


METRICS = [ClassShares, Confidence, Entanglement, LabelAgreement]


@pytest.mark.parametrize("metric", METRICS)
def test_numbers_do_not_depend_on_the_order_and_are_the_same_twice(rng, metric):
    generated = {"probabilities": random_probabilities(rng, 50), "labels": torch.randint(4, (50,), generator=rng)}
    reference = {"probabilities": random_probabilities(rng, 70), "labels": torch.randint(4, (70,), generator=rng)}
    reference = reference if "reference" in metric.sides else None
    first = scored(metric(), generated, reference)
    assert scored(metric(), generated, reference) == first
    assert scored(metric(), {name: rows.flip(0) for name, rows in generated.items()}, reference) == first


@pytest.mark.parametrize("metric", METRICS)
def test_a_probability_that_is_not_finite_is_refused(metric):
    images = ImageSet(probabilities=torch.tensor([[0.5, 0.5], [math.nan, 1.0]]), labels=torch.zeros(2).long())
    with pytest.raises(MetricError, match="first: image 1"):
        metric().update(images, side="generated")


@pytest.mark.parametrize(
    ("metric", "argument", "wrong"),
    [
        (ClassShares, "covered_at", [0.0, 1.1, math.nan, True, "0.1"]),
        (Entanglement, "margin", [0.0, 1.1, math.nan, True, "0.1"]),
        (LabelAgreement, "num_bins", [0, -1, 2.0, True, "5"]),
    ],
)
def test_arguments_are_refused_by_name(metric, argument, wrong):
    for value in wrong:
        with pytest.raises((ConfigError, TypeCheckError), match=argument):
            metric(**{argument: value})
