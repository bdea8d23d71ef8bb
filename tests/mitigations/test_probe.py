from pathlib import Path

import numpy as np
import pytest
import torch
from curating import PIXELS, Bench, points
from sklearn.linear_model import LogisticRegression

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.probe import Probe, fit_softmax, own_confidence, softmax
from collapse_bench.pool import UNLABELLED


def test_it_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    features = rng.normal(size=(90, 4)) + labels[:, None]
    ridge = 0.05
    fitted = fit_softmax(torch.from_numpy(features), torch.from_numpy(labels), 3, ridge)
    standard = (features - features.mean(0)) / features.std(0)
    # scikit-learn minimises sum of losses + |w|^2 / (2 C).
    reference = LogisticRegression(C=1 / (2 * ridge * 90), tol=1e-10, max_iter=5000).fit(standard, labels)
    ours = softmax(torch.from_numpy(features), fitted)
    np.testing.assert_allclose(ours.numpy(), reference.predict_proba(standard), atol=1e-5)


def test_constant_features_and_absent_classes_do_no_harm() -> None:
    features = torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]])
    probabilities = softmax(features, fit_softmax(features, torch.tensor([0, 0, 2]), 4, 0.1))
    assert torch.isfinite(probabilities).all()
    assert probabilities.shape == (3, 4)


def test_confidence_is_that_of_the_own_class_which_there_must_be() -> None:
    probabilities = torch.tensor([[0.7, 0.3], [0.7, 0.3]])
    assert own_confidence(probabilities, torch.tensor([0, 1])).tolist() == pytest.approx([0.7, 0.3])
    with pytest.raises(AssertionError, match="refused before training"):
        own_confidence(probabilities, torch.tensor([0, UNLABELLED]))
    assert own_confidence(torch.ones(1, 1), torch.tensor([UNLABELLED])).tolist() == [1.0], "there is one class only"


def test_it_is_fitted_once_and_metered(tmp_path: Path) -> None:
    bench = Bench(tmp_path, points(0, 255), real=points(0, 1, 2, 250, 251), real_labels=[0, 0, 0, 1, 1])
    probe = Probe(features=PIXELS, ridge=1e-3)
    assert probe.probabilities(bench.model.images, bench.now).argmax(1).tolist() == [0, 1]
    assert bench.now.spent.real_images_seen["probe"] == 5
    assert bench.now.spent.judging_evaluations == 0, "pixels take no network"


def test_what_cannot_be_learnt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ridge"):
        Probe(features=PIXELS, ridge=0.0)
    setting = Bench(tmp_path, points(1, 2), real=points(1, 2), real_labels=[0, UNLABELLED]).setting
    with pytest.raises(ConfigError, match="labelled real images"):
        Probe(features=PIXELS, ridge=0.1).check(setting)
