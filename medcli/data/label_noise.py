"""Labels that are probably wrong: ranked by a judge that has not seen the scan it judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medcli.config import PreprocessConfig
from medcli.data.splits import assign_by_patient
from medcli.data.survey import SLICES
from medcli.errors import ManifestError, UsageError
from medcli.evaluation.baselines import histogram_features, thumbnail_features
from medcli.imaging.preprocess import Preprocessor, sample_slices
from medcli.records import Case, Scan

FOLDS = (5, 3, 2)  # the first that leaves patients of each class in each fold


@dataclass(frozen=True, slots=True)
class LabelNoise:
    """What a judge says of N labels.

    Attributes
    ----------
    quality : (N,) 0–1, lower is more suspicious; comparable between classes
    suggested : (N,) class indices, what the judge takes the scan for
    suspicious : (N,) bool, labels that confident learning calls wrong
    accuracy : share of labels with which the judge agrees: a poor judge makes a poor ranking
    """

    quality: np.ndarray
    suggested: np.ndarray
    suspicious: np.ndarray
    accuracy: float

    @property
    def ranking(self) -> np.ndarray:
        """(N,) positions, the suspicious ones first, each part by ascending quality."""
        return np.lexsort((self.quality, ~self.suspicious))


def picture_features(scan: Scan) -> np.ndarray:
    """(F,) thumbnail and histogram of each colour: what can be seen without a network."""
    chosen = sample_slices(len(scan.pixels), SLICES)
    images = _PREPROCESSOR.unit_input(scan, slices=chosen)
    thumbnail = thumbnail_features(images.mean(axis=1, keepdims=True))
    return np.concatenate([thumbnail, histogram_features(images)]).astype(np.float32)


def require_cleanlab() -> None:
    """Raise where the package that ranks labels is missing.

    Raises
    ------
    UsageError : it is
    """
    try:
        import cleanlab.filter  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "the ranking of suspicious labels needs the package cleanlab",
            "pip install 'medcli[cleanlab]'",
        ) from error


def rank_labels(
    features: np.ndarray,
    cases: Sequence[Case],
    classes: Sequence[str],
    *,
    links: Sequence[tuple[int, int]] = (),
    seed: int = 0,
) -> LabelNoise:
    """Judge each label by logistic regression on the scans of other patients.

    Parameters
    ----------
    features : (N, F)
    cases : N, labelled; scans of a patient are judged by the same fold
    classes : every label
    links : copies of one picture, which are judged together too

    Raises
    ------
    ManifestError : a class has fewer than two patients
    UsageError : the package cleanlab is missing

    References
    ----------
    Northcutt, Jiang, Chuang 2021, Confident learning, J. Artif. Intell. Res. 70
    """
    require_cleanlab()
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    labels = np.array([classes.index(str(case.label)) for case in cases])
    probabilities = _out_of_sample(features, labels, _folds(cases, links, seed), len(classes))
    return LabelNoise(
        quality=get_label_quality_scores(labels, probabilities, method="normalized_margin"),
        suggested=probabilities.argmax(axis=1),
        suspicious=find_label_issues(labels, probabilities, n_jobs=1),
        accuracy=float((probabilities.argmax(axis=1) == labels).mean()),
    )


def _folds(cases: Sequence[Case], links: Sequence[tuple[int, int]], seed: int) -> np.ndarray:
    """(N,) fold of each scan, each with scans of every class."""
    for folds in FOLDS:
        fractions = {str(fold): 1 / folds for fold in range(folds)}
        try:
            return np.array(assign_by_patient(cases, fractions, seed=seed, links=links), int)
        except ManifestError:
            if folds == FOLDS[-1]:
                raise
    raise AssertionError


def _out_of_sample(
    features: np.ndarray, labels: np.ndarray, folds: np.ndarray, count: int
) -> np.ndarray:
    """(N, K) probabilities, each by a regression on the other folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probabilities = np.empty((len(labels), count))
    for fold in np.unique(folds):
        known, asked = folds != fold, folds == fold
        regression = LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000)
        judge = make_pipeline(StandardScaler(), regression).fit(features[known], labels[known])
        probabilities[asked] = judge.predict_proba(features[asked])
    return probabilities


_PREPROCESSOR = Preprocessor(PreprocessConfig(size=64, channels=3))
