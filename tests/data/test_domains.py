from __future__ import annotations

import numpy as np
import pytest

from medcli.data.arrays import ScanArrays
from medcli.data.domains import check_domain, domains_of, sites_of, with_domains
from medcli.data.splits import Split
from medcli.errors import ManifestError
from medcli.records import Case


def case(number: int, label: str, **columns: str) -> Case:
    name = f"{number}.png"
    return Case(path=name, files=(name,), kind="picture", scan_id=name, label=label,
                columns=columns)  # fmt: skip


CASES = [
    case(0, "a", site="north"),
    case(1, "b", site="south"),
    case(2, "a", site=" south "),
    case(3, "b", scanner="x"),
]


def test_a_column_is_known_by_its_name_in_any_case() -> None:
    assert check_domain(CASES, " Site ") == "site"


def test_a_column_that_is_not_there_is_answered_with_the_nearest() -> None:
    with pytest.raises(ManifestError, match="--domain 'sitee'") as caught:
        check_domain(CASES, "sitee")
    assert "did you mean 'site'?" in caught.value.hint
    assert "scanner, site" in caught.value.hint
    with pytest.raises(ManifestError) as caught:
        check_domain([case(0, "a")], "site")
    assert "folders and archives do not" in caught.value.hint


def test_a_scan_without_a_value_is_of_unknown() -> None:
    assert domains_of(CASES, "site") == ["north", "south", "south", "unknown"]


def test_sites_are_those_of_the_domain_else_of_the_column_site() -> None:
    assert sites_of(CASES, "scanner") == ["unknown"] * 3 + ["x"]
    assert sites_of(CASES, None) == domains_of(CASES, "site")
    assert sites_of([case(0, "a"), case(1, "b")], None) is None


def parts(train: list[Case]) -> tuple[dict[str, ScanArrays], Split]:
    split = Split(tuple(train), tuple(CASES[:1]), ())
    arrays = {
        part: ScanArrays(
            np.zeros((len(cases), 1, 2, 2), np.uint8),
            np.ones(len(cases), np.int64),
            np.zeros(len(cases), np.int64),
        )
        for part, cases in (("train", split.train), ("val", split.val), ("test", ()))
    }
    return arrays, split


def test_one_number_means_one_site_in_every_part() -> None:
    arrays, warnings = with_domains(*parts(CASES[1:]), "site")
    numbers = [arrays[part].domains for part in ("train", "val", "test")]
    assert [list(each) for each in numbers if each is not None] == [[1, 1, 2], [0], []]
    chosen = arrays["train"].select(np.array([2, 0])).domains
    assert chosen is not None
    assert chosen.tolist() == [2, 1]
    assert warnings == [
        "site 'unknown' has scans of class 'b' only: there the network may learn the one "
        "from the other, and no weight can undo it"
    ]


def test_a_single_site_has_nothing_to_even_out() -> None:
    _, warnings = with_domains(*parts(CASES[1:3]), "site")
    assert warnings == ["every scan of the training part has site 'south': nothing to even out"]
