"""The page of a run and of an evaluation, from what they hold."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medcli.errors import UsageError
from medcli.inference.predictor import Predictor
from medcli.models.held_out import read_held_out
from medcli.models.package import HELD_OUT, ModelPackage, load_package, seal
from medcli.workflows.evaluating import evaluate
from medcli.workflows.reporting import evaluated_page, run_page


class Links(HTMLParser):
    """Everything a page would ask for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {"src", "href", "xlink:href", "srcset", "action", "data", "poster"}
        self.found += [str(value) for name, value in attrs if name in named]
        self.found += [tag] * (tag in {"script", "link", "iframe", "object", "embed"})


@pytest.fixture(scope="module")
def page(tiny_run: Path, sample_folder: Path) -> str:
    """The page of an evaluation of all sample scans, pictures included."""
    predictor = Predictor(load_package(tiny_run))
    inputs = [str(sample_folder / "nodule.csv")]
    result = evaluate(predictor, inputs, pictures=True)
    assert result.answers is not None
    return evaluated_page(predictor.package, result.metrics, result.answers, result.mistakes)


def test_the_page_asks_for_nothing(page: str) -> None:
    asked = [link for link in Links(page).found if not link.startswith(("#", "data:image/jpeg;"))]
    assert asked == []
    assert not re.findall(r"url\(|@import|https?://", page.replace("http-equiv", ""))


def test_the_page_names_no_scan_and_no_place(page: str, sample_folder: Path) -> None:
    assert list(sample_folder.rglob("SYN-*"))
    assert "SYN-" not in page
    assert str(sample_folder.parent) not in page


def test_the_curves_of_a_run_are_those_of_its_answers(tiny_run: Path) -> None:
    package = load_package(tiny_run)
    answers = read_held_out(package)
    assert answers is not None
    positive = answers.labels == package.task.classes.index("malignant")
    area = roc_auc_score(positive, answers.probabilities[:, 1])
    assert package.metrics["auroc"] == pytest.approx(area)
    np.testing.assert_allclose(answers.probabilities.sum(axis=1), 1)
    html = run_page(package)
    assert f"AUROC {area:.3f}" in html
    assert html.count("<svg") == 5
    assert "A run keeps no pictures" in html
    assert package.fingerprint in html


def test_a_run_without_answers_has_numbers_and_no_curves(tiny_run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_run, tmp_path / "old")
    (folder / HELD_OUT).unlink()
    seal(folder)
    html = run_page(load_package(folder))
    assert "older medcli" in html
    assert html.count("<svg") == 1  # the baselines


def test_a_package_without_numbers_is_refused(
    make_package: Callable[..., ModelPackage], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="holds no numbers"):
        run_page(make_package(tmp_path / "bare"))


def test_chromium_opens_the_page_without_an_error_or_a_request(
    page: str, open_in_browser: Callable[[str], str]
) -> None:
    assert "Reliability" in open_in_browser(page)
