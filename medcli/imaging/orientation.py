"""A volume in any orientation → the same voxels along LPS axes, by flips and swaps only.

Array axis z runs to the head, y to the back, x to the patient's left, as in an axial CT
series. A lone slice keeps its plane and is turned as it is looked at: a sagittal one with
the face to the left, a coronal one with the feet down.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np

_PLANES = {  # the two LPS axes of a plane → signed axes of its rows (y) and columns (x)
    frozenset((0, 1)): ((1, 1), (0, 1)),  # axial: y to the back, x to the left
    frozenset((0, 2)): ((2, -1), (0, 1)),  # coronal: y to the feet, x to the left
    frozenset((1, 2)): ((2, -1), (1, 1)),  # sagittal: y to the feet, x to the back
}


def to_lps(voxels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn a volume to LPS.

    Parameters
    ----------
    voxels : (z, y, x, …) as stored
    affine : (4, 4) index (x, y, z) → LPS mm

    Returns
    -------
    a view of the voxels, and the (4, 4) affine of array index (z, y, x) → LPS mm
    """
    by_array = affine.copy()
    by_array[:, :3] = affine[:, 2::-1]  # columns in the order of the array's axes
    order, signs = _one_slice(by_array) if voxels.shape[0] == 1 else _whole(by_array)
    turned = voxels.transpose(*order, *range(3, voxels.ndim))
    result = np.eye(4)
    result[:, 3] = by_array[:, 3]
    for axis, (source, sign) in enumerate(zip(order, signs, strict=True)):
        result[:3, axis] = sign * by_array[:3, source]
        if sign < 0:
            turned = np.flip(turned, axis)
            result[:3, 3] += (voxels.shape[source] - 1) * by_array[:3, source]
    return turned, result


def _whole(affine: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which array axis becomes z, y and x of LPS, and whether it is flipped."""
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    along = np.abs(unit)
    order = max(permutations(range(3)), key=lambda axes: _fit(along, axes))
    world = (2, 1, 0)  # z runs along S, y along P, x along L
    return order, tuple(-1 if unit[w, s] < 0 else 1 for w, s in zip(world, order, strict=True))


def _fit(along: np.ndarray, order: tuple[int, ...]) -> float:
    """How well the array axes `order` run along S, P and L; ties go to the first order."""
    return round(float(along[2, order[0]] + along[1, order[1]] + along[0, order[2]]), 6)


def _one_slice(affine: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The same for a lone slice: its first axis stays, rows and columns are turned."""
    rows, columns = (affine[:3, axis] / np.linalg.norm(affine[:3, axis]) for axis in (1, 2))
    pairs = [(a, b) for a, b in permutations(range(3), 2)]
    along_rows, along_columns = max(
        pairs, key=lambda pair: round(float(abs(rows[pair[0]]) + abs(columns[pair[1]])), 6)
    )
    (y, y_sign), (x, _) = _PLANES[frozenset((along_rows, along_columns))]
    order = (0, 1, 2) if along_rows == y else (0, 2, 1)
    by_world = {along_rows: rows[along_rows], along_columns: columns[along_columns]}
    return order, (1, -1 if by_world[y] * y_sign < 0 else 1, -1 if by_world[x] < 0 else 1)
