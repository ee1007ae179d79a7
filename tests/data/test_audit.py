from __future__ import annotations

import numpy as np

from medcli.data.audit import alike, find_copies, torn, united
from medcli.data.likeness import look_of


def pictures(*seeds: int) -> list[np.ndarray]:
    return [np.random.default_rng(seed).random((1, 1, 32, 32)) for seed in seeds]


def test_positions_with_one_key_belong_together_and_none_is_like_no_other() -> None:
    assert alike(["a", None, "b", "a", None, "b", "c"]) == [(0, 3), (2, 5)]


def test_a_group_is_torn_where_its_known_values_differ() -> None:
    groups = [(0, 1), (1, 2), (2, 3)]
    assert torn(groups, ["x", "x", "y", None]) == [(1, 2)]


def test_links_followed_on_make_one_group() -> None:
    assert united(6, [(4, 2), (2, 5), (0, 1)]).tolist() == [0, 0, 2, 3, 2, 2]


def test_links_make_the_groups_that_scipy_finds() -> None:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rng = np.random.default_rng(0)
    links = rng.integers(0, 200, (120, 2))
    graph = coo_matrix((np.ones(120), links.T), shape=(200, 200))
    _, wanted = connected_components(graph, directed=False)
    found = united(200, [(int(a), int(b)) for a, b in links])
    assert len(set(zip(found.tolist(), wanted.tolist(), strict=True))) == len(set(wanted.tolist()))
    assert len(set(found.tolist())) == len(set(wanted.tolist()))


def test_copies_are_identical_or_near_never_both() -> None:
    one, other = pictures(1, 2)
    faded = one * 0.8 + 0.1
    copies = find_copies(["p", "q", "p", "r"], [look_of(p) for p in (one, other, one, faded)])
    assert copies.identical == ((0, 2),)
    assert list(copies.near) == [(0, 3), (2, 3)]
    assert united(4, copies.links).tolist() == [0, 1, 0, 0]


def test_copies_across_labels_leave_the_others_out() -> None:
    one, other = pictures(1, 2)
    looks = [look_of(p) for p in (one, one * 0.9, other, other * 0.9)]
    copies = find_copies(["p", "q", "r", "s"], looks).across(["a", "a", "a", "b"])
    assert list(copies.near) == [(2, 3)]
    assert copies.groups == [(2, 3)]


def test_even_pictures_are_copies_of_nothing() -> None:
    even = np.full((1, 1, 32, 32), 0.5)
    copies = find_copies(["p", "p"], [look_of(even), look_of(even)])
    assert copies.groups == []
