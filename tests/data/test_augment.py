from __future__ import annotations

import colorsys

import pytest
import torch
from torch import Tensor

from medcli.config import Augmentation
from medcli.data import augment as module
from medcli.data.augment import RECIPES, Recipe, augment

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS: list[Augmentation] = ["ct", "radiograph", "colour", "grey"]


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe "grey" that changes nothing, to switch single changes on in."""
    monkeypatch.setitem(RECIPES, "grey", Recipe())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, channels: int = 1, side: int = 24) -> Tensor:
    """Smooth pictures with values in 0.2–0.8."""
    coarse = torch.rand(count, channels, 4, 4, generator=seeded(9)) * 0.6 + 0.2
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")


def blob(side: int = 33) -> Tensor:
    """(1, 1, side, side) a bright spot right of the centre on black."""
    image = torch.zeros(1, 1, side, side)
    image[..., side // 2 - 2 : side // 2 + 3, side - 10 : side - 5] = 0.8
    return image


def test_none_changes_nothing() -> None:
    images = pictures(3)
    assert augment(images, [1, 2], "none", seeded()) is images


def test_a_recipe_without_ranges_is_the_identity(only: None) -> None:
    images = pictures(3)
    torch.testing.assert_close(augment(images, [1, 2], "grey", seeded()), images)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_repeats_the_result_and_another_does_not(kind: Augmentation) -> None:
    images = pictures(4)
    first, again, other = (augment(images, [3, 1], kind, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.01)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_shape_type_and_range_stay_and_the_input_too(kind: Augmentation, channels: int) -> None:
    images = torch.rand(5, channels, 20, 20, generator=seeded())
    before = images.clone()
    changed = augment(images, [2, 3], kind, seeded())
    assert changed.shape == images.shape
    assert changed.dtype == images.dtype
    assert 0 <= changed.min() <= changed.max() <= 1
    assert torch.equal(images, before)
    assert not torch.equal(changed, images)


@pytest.mark.parametrize("kind", KINDS)
def test_slices_of_one_scan_change_alike_and_scans_differ(
    kind: Augmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPES[kind]
    quiet = {name: getattr(recipe, name) for name in recipe.__dataclass_fields__} | {"noise": 0.0}
    monkeypatch.setitem(RECIPES, kind, Recipe(**quiet))
    images = pictures(1).expand(6, -1, -1, -1)
    changed = augment(images, [4, 2], kind, seeded(3))
    for scan in (changed[:4], changed[4:]):
        assert torch.equal(scan, scan[:1].expand_as(scan))
    assert not torch.allclose(changed[0], changed[4], atol=0.01)


@pytest.mark.parametrize("change", [{"brightness": 0.2}, {"contrast": 1.5}, {"gamma": 1.5}])
def test_equal_values_in_two_slices_stay_equal(
    only: None, change: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "grey", Recipe(**change))
    dark, bright = torch.full((1, 1, 8, 8), 0.3), torch.full((1, 1, 8, 8), 0.7)
    bright[..., 4, 4] = 0.3
    changed = augment(torch.cat([dark, bright]), [2], "grey", seeded(5))
    torch.testing.assert_close(changed[1, 0, 4, 4], changed[0, 0, 4, 4])
    assert changed[0, 0, 4, 4] != pytest.approx(0.3, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_black_background_stays_black(kind: Augmentation) -> None:
    assert (augment(torch.zeros(4, 1, 16, 16), [2, 2], kind, seeded()) == 0).all()
    corners = augment(blob(), [1], kind, seeded())[0, 0, :3, :3]
    assert (corners == 0).all()


def test_a_shift_moves_by_its_share_of_the_side(
    only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "grey", Recipe(shift=0.25))
    images = blob().expand(200, -1, -1, -1)
    moved = augment(images, [1] * 200, "grey", seeded())
    rows = moved.sum(dim=(1, 3)) > 0.1  # the spot's rows; the columns may leave the picture
    tops = torch.tensor([int(seen.nonzero()[0]) for seen in rows if seen.any()])
    travel = (tops - 14).abs().max()
    assert 0.2 * 33 < travel <= 0.25 * 33 + 1


def turned(kind: str, count: int = 64) -> Tensor:
    """(count, 2, 2) output → input axes of `count` random changes, taken from the sampling grid."""
    seen: list[Tensor] = []

    def record(theta: Tensor, shape: list[int], align_corners: bool) -> Tensor:
        seen.append(theta)
        return grid(theta, shape, align_corners=align_corners)

    grid = module.F.affine_grid
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.F, "affine_grid", record)
        augment(pictures(count), [1] * count, kind, seeded())  # type: ignore[arg-type]
    return seen[0][:, :, :2]


@pytest.mark.parametrize("kind", ["radiograph", "grey"])
def test_where_sides_may_matter_nothing_is_mirrored_or_laid_on_its_side(
    kind: Augmentation,
) -> None:
    axes = turned(kind, 500)
    assert (torch.linalg.det(axes) > 0).all()
    assert (axes[:, 0, 0] > axes[:, 0, 1].abs()).all()  # turned by less than 45°


@pytest.mark.parametrize("kind", ["ct", "colour"])
def test_half_of_the_tiles_are_mirrored_and_all_angles_occur(kind: Augmentation) -> None:
    axes = turned(kind)
    mirrored = (torch.linalg.det(axes) < 0).float().mean()
    assert 0.3 < mirrored < 0.7
    angles = torch.atan2(axes[:, 0, 1], axes[:, 1, 1])
    assert angles.max() - angles.min() > 4.7  # radians


def test_the_scale_is_a_factor_between_one_over_it_and_it(
    only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "grey", Recipe(scale=1.5))
    factors = torch.linalg.det(turned("grey")).abs().sqrt()
    assert factors.min() >= 1 / 1.5 - 1e-5
    assert factors.max() <= 1.5 + 1e-5
    assert factors.log().mean().abs() < 0.1
    assert factors.max() / factors.min() > 1.8


def test_the_blur_keeps_the_sum_of_what_lies_inside(
    only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "grey", Recipe(blur=1.0))
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 4] = 1
    blurred = augment(image, [1], "grey", seeded())
    row = torch.tensor([0.25, 0.5, 0.25])
    torch.testing.assert_close(blurred[0, 0, 3:6, 3:6], torch.outer(row, row))
    torch.testing.assert_close(blurred.sum(), torch.tensor(1.0))


def test_contrast_and_brightness_keep_the_hue(only: None, monkeypatch: pytest.MonkeyPatch) -> None:
    of = RECIPES["colour"]
    recipe = Recipe(brightness=of.brightness, contrast=of.contrast)
    monkeypatch.setitem(RECIPES, "grey", recipe)
    images = torch.rand(1, 3, 6, 6, generator=seeded()) * 0.4 + 0.3
    changed = augment(images, [1], "grey", seeded(4))
    assert not torch.allclose(changed, images, atol=0.01)
    for before, after in zip(
        images[0].flatten(1).T.tolist(), changed[0].flatten(1).T.tolist(), strict=True
    ):
        hues = [colorsys.rgb_to_hsv(*colour)[0] for colour in (before, after)]
        assert hues[1] == pytest.approx(hues[0], abs=1e-3)  # the sampling grid is not exact


def test_gamma_makes_a_stain_stronger_and_keeps_its_colour(
    only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "grey", Recipe(gamma=RECIPES["colour"].gamma))
    images = torch.rand(1, 3, 6, 6, generator=seeded()) * 0.6 + 0.2
    changed = augment(images, [1], "grey", seeded(4))
    ratio = changed.log() / images.log()  # absorbance after and before, of every channel
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio))
    assert abs(float(ratio.mean()) - 1) > 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_every_modality_gets_intensity_and_scanner_variation(kind: Augmentation) -> None:
    recipe = RECIPES[kind]
    assert recipe.brightness
    assert recipe.contrast > 1
    assert recipe.noise
    if kind != "ct":  # a CT has its unit, and a masked nodule no blurred rim
        assert recipe.gamma > 1
        assert recipe.blur


def test_scans_of_several_kinds_change_each_in_its_own_way() -> None:
    images = pictures(6, channels=3)
    before = images.clone()
    changed = augment(images, [2, 1, 2, 1], ["none", "ct", "none", "radiograph"], seeded())
    assert torch.equal(images, before)
    assert torch.equal(changed[[0, 1, 3, 4]], images[[0, 1, 3, 4]])
    generator = seeded()
    torch.testing.assert_close(changed[2:3], augment(images[2:3], [1], "ct", generator))
    torch.testing.assert_close(changed[5:], augment(images[5:], [1], "radiograph", generator))


def test_one_kind_for_each_scan_is_the_kind_for_all() -> None:
    images = pictures(3)
    each = augment(images, [1, 2], ["colour", "colour"], seeded())
    assert torch.equal(each, augment(images, [1, 2], "colour", seeded()))


def test_a_turned_nodule_keeps_its_rim_apart_from_the_masked_background() -> None:
    images = torch.zeros(6, 1, 33, 33)
    images[..., 10:22, 12:20] = 0.8
    turned = augment(images, [1] * 6, "ct", seeded())
    inside = turned[turned > 0]
    assert not torch.equal(turned > 0, images > 0)
    assert inside.min() > 0.65  # a mean with the background would be 0.4
    assert 0.8 < len(inside) / (images > 0).sum() < 1.2


def test_stretching_changes_width_against_height_and_not_the_area(
    only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "grey", Recipe(aspect=1.44))
    axes = turned("grey")
    ratio = axes[:, 0, 0] / axes[:, 1, 1]
    assert 1 / 1.44 - 1e-5 <= ratio.min() < 0.8
    assert 1.25 < ratio.max() <= 1.44 + 1e-5
    torch.testing.assert_close(torch.linalg.det(axes), torch.ones(64))


def test_a_slope_brightens_one_edge_as_much_as_it_darkens_the_other(
    only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "grey", Recipe(slope=0.3))
    change = augment(torch.full((40, 1, 9, 9), 0.5), [1] * 40, "grey", seeded()) - 0.5
    torch.testing.assert_close(change, -change.flip(2, 3), atol=1e-5, rtol=0)
    assert 0.1 < change.abs().max() <= 0.3 + 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_every_picture_of_a_kind_stays_recognisable(kind: Augmentation) -> None:
    """The mean of many changes of a picture resembles it, or a finding could not be learnt."""
    image = pictures(1, channels=3, side=48)
    changed = augment(image.expand(200, -1, -1, -1), [1] * 200, kind, seeded())
    if RECIPES[kind].quarter_turns:
        image = (
            image + image.rot90(1, (2, 3)) + image.rot90(2, (2, 3)) + image.rot90(3, (2, 3))
        ) / 4
    pair = torch.stack([changed.mean(dim=0).flatten(), image[0].flatten()])
    assert torch.corrcoef(pair)[0, 1] > 0.8
