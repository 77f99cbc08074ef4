"""The liver's neighbours: great vessels, kidneys, spleen, stomach, gallbladder, pancreas and gut."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from plugins.source.phantom.body import Build, Tissue, centre_line
from plugins.source.phantom.fields import F32, Canvas, Field, Point, capsule, common, ellipsoid, single, union
from plugins.source.phantom.liver import Places

GAS = -950.0


def paint_organs(canvas: Canvas, build: Build, places: Places, liver: F32, cavity: F32, lining: F32) -> None:
    """Paint everything beside the liver, each keeping clear of it; `cavity` and `lining` are the walls around them."""
    fine = Field(build.rng(20), 6.0)(canvas.grid.z, canvas.grid.y, canvas.grid.x)
    free = np.maximum(np.maximum(1.5 - liver, cavity + 2.5), lining + 1.5)
    paint_gut(canvas, build, free)
    paint_pancreas(canvas, build, free, fine)
    left_kidney = paint_kidneys(canvas, build, places, free, fine)
    paint_stomach(canvas, build, places, free, fine)
    paint_spleen(canvas, build, free, fine, left_kidney)
    paint_great_vessels(canvas, build, places, free)
    paint_gallbladder(canvas, build, places)


def paint_tube(
    canvas: Canvas,
    line: list[Point],
    radius: float,
    hu: float,
    tissue: Tissue,
    keep: F32 | None = None,
    end: float | None = None,
) -> None:
    """A vessel along a line, widening or narrowing to `end`, within the shape `keep` if there is one."""
    count = len(line) - 1
    last = radius if end is None else end
    for index, (a, b) in enumerate(pairwise(line)):
        r0, r1 = (radius + (last - radius) * at / count for at in (index, index + 1))
        middle = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2, (a[2] + b[2]) / 2)
        reach = [abs(q - p) / 2 + radius + 2 for p, q in zip(a, b, strict=True)]
        near = canvas.near(middle, reach)
        tube = capsule(near, a, b, r0, r1)
        canvas.paint(near, tube if keep is None else np.maximum(tube, keep[near.box]), hu, tissue)


def paint_great_vessels(canvas: Canvas, build: Build, places: Places, free: F32) -> None:
    """Aorta with some chalk, cava, portal vein and their larger branches."""
    rng = build.rng(21)
    hu, sy = build.hu, build.spine_y
    sway = rng.uniform(-5, 5, 6)
    heights = np.linspace(-190, 190, 6)
    wide = rng.uniform(9.5, 12.5)
    aorta = [
        (11.0 + 0.03 * z + s, sy - 27.0 + 0.10 * max(z - 20, 0), float(z)) for z, s in zip(heights, sway, strict=True)
    ]
    paint_tube(canvas, centre_line(aorta), wide * 0.9, hu["aorta"], Tissue.AORTA, end=wide * 1.1)
    if rng.random() < 0.6:
        for _ in range(rng.integers(3, 12)):
            a = aorta[1 + int(rng.integers(0, 3))]
            turn, z = rng.uniform(0, 2 * np.pi), rng.uniform(-90, 60)
            at = (a[0] + 0.95 * wide * np.cos(turn), a[1] + 0.95 * wide * np.sin(turn), z)
            near = canvas.near(at, (5, 5, 6))
            canvas.paint(near, ellipsoid(near, at, (2.2, 1.6, 4.0)), 520.0, Tissue.OTHER)
    x, y = places.ivc
    cava: list[Point] = [
        (x - 2, y + 4, -190),
        (x, y + 3, -60),
        (x, y, -10),
        (x, y - 1, build.dome - 22),
        (x + 9, y - 14, build.dome + 8),
    ]
    for a, b in pairwise(cava):
        near = canvas.near(
            ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2, (a[2] + b[2]) / 2), (18, 18, abs(b[2] - a[2]) / 2 + 10)
        )
        squeezed = near._replace(y=near.y * np.float32(1.2))
        tube = capsule(squeezed, (a[0], a[1] * 1.2, a[2]), (b[0], b[1] * 1.2, b[2]), 11.6, 11.6)
        canvas.paint(near, tube, hu["ivc"], Tissue.IVC)
    h = places.hilum
    portal: list[Point] = [
        (2, sy - 48, -48),
        (-4, sy - 50, -30),
        (h[0] + 4, h[1] + 6, h[2] - 8),
        (h[0] - 14, h[1] + 3, h[2] + 2),
    ]
    paint_tube(canvas, centre_line(portal), 6.6, hu["portal"], Tissue.PORTAL_VEIN, end=5.6)
    left: list[Point] = [(h[0], h[1] + 3, h[2] - 2), (h[0] + 10, h[1] - 2, h[2] + 4), (h[0] + 18, h[1] - 12, h[2] + 10)]
    paint_tube(canvas, centre_line(left), 4.6, hu["portal"], Tissue.PORTAL_VEIN)
    mesenteric: list[Point] = [(2, sy - 48, -46), (5, sy - 56, -75), (8, sy - 62, -170)]
    paint_tube(canvas, centre_line(mesenteric), 5.2, hu["portal"], Tissue.PORTAL_VEIN)
    artery: list[Point] = [(12, sy - 34, -28), (14, sy - 48, -45), (18, sy - 56, -170)]
    paint_tube(canvas, centre_line(artery), 3.6, hu["aorta"], Tissue.AORTA)
    spleen_x = 0.62 * build.cavity_x
    splenic: list[Point] = [(0, sy - 48, -40), (25, sy - 44, -28), (50, sy - 30, -18), (spleen_x, sy - 14, 0)]
    paint_tube(canvas, centre_line(splenic), 4.2, hu["portal"], Tissue.PORTAL_VEIN, free)
    coeliac: list[Point] = [(11, sy - 34, -12), (8, sy - 52, -10), (h[0] + 10, h[1] + 2, h[2] - 4)]
    paint_tube(canvas, centre_line(coeliac), 2.8, hu["aorta"], Tissue.AORTA, free, end=1.8)
    for side in (-1, 1):
        start = (x, y, -64.0) if side < 0 else (11.0, sy - 40, -60.0)
        renal: list[Point] = [start, (side * 30, sy - 18, -66), (side * 52, sy - 8, -70)]
        paint_tube(canvas, centre_line(renal), 4.4, hu["ivc"], Tissue.IVC, free)


def paint_kidneys(canvas: Canvas, build: Build, places: Places, free: F32, fine: F32) -> Point:
    """Both kidneys in their fat; returns the left one's centre, for the spleen to keep clear of."""
    rng = build.rng(22)
    medulla = build.hu["kidney"] - rng.uniform(12, 40)
    left = (0.50 * build.cavity_x - 2, build.spine_y + 6, places.kidney[2] + rng.uniform(6, 22))
    for side, at in ((-1, places.kidney), (1, left)):
        radii = (rng.uniform(25, 29), rng.uniform(27, 31), rng.uniform(50, 58))
        near = canvas.near(at, (50, 50, 70))
        shape = ellipsoid(near, at, radii, axial=side * 0.6, coronal=side * 0.12)
        fat_pad = ellipsoid(near, at, (radii[0] + 10, radii[1] + 8, radii[2] + 14), axial=side * 0.6)
        canvas.paint(near, np.maximum(fat_pad, free[near.box]), build.hu["fat"], Tissue.FAT)
        notch = ellipsoid(near, (at[0] - side * 24, at[1] - 14, at[2]), (24, 13, 22), axial=side * 0.6)
        shape = common(common(shape, -notch, 4.0), free[near.box], 3.0)
        canvas.paint(near, shape, build.hu["kidney"] + 3 * fine[near.box], Tissue.KIDNEY)
        pyramids = shape + 7.0 + 3.0 * np.sin(near.z / 4.2) + 2.0 * fine[near.box]
        canvas.paint(near, pyramids, medulla, Tissue.KIDNEY, 2.5)
        sinus = (
            ellipsoid(near, (at[0] - side * 9, at[1] - 5, at[2]), (11, 8, 26), axial=side * 0.6) + 1.6 * fine[near.box]
        )
        canvas.paint(near, np.maximum(sinus, free[near.box]), build.hu["fat"] + 15, Tissue.FAT, 2.0)
    return left


def paint_spleen(canvas: Canvas, build: Build, free: F32, fine: F32, left_kidney: Point) -> None:
    """A crescent along the left wall, hollowed by the stomach."""
    rng = build.rng(23)
    ax, by = build.cavity_x, build.cavity_y
    large = rng.uniform(0.85, 1.2)
    at = (0.80 * ax, 0.34 * by, 8 + rng.uniform(-10, 12))
    near = canvas.near(at, (75, 85, 85))
    outer = ellipsoid(near, at, (38 * large, 60 * large, 58 * large), axial=0.35, coronal=-0.2)
    inner = ellipsoid(near, (0.42 * ax, 0.02 * by, at[2] + 4), (0.33 * ax, 0.52 * by, 90), axial=0.3)
    kidney = ellipsoid(near, left_kidney, (33, 35, 62), axial=0.6)
    shape = common(common(common(outer, -inner, 10.0), -kidney, 4.0), free[near.box], 8.0)
    canvas.paint(near, shape, build.hu["spleen"] + 2 * fine[near.box], Tissue.SPLEEN)


def paint_stomach(canvas: Canvas, build: Build, places: Places, free: F32, fine: F32) -> None:
    """Wall, folds, fluid with food, and gas above a level that lies flat because the patient does."""
    rng = build.rng(24)
    ax, by = build.cavity_x, build.cavity_y
    at = places.stomach
    fill = rng.uniform(0.72, 1.05)
    near = canvas.near((at[0] - 15, at[1], at[2] - 10), (105, 70, 90))
    fundus = ellipsoid(near, (at[0] + 6, at[1] + 14, at[2] + 14), (38 * fill, 34 * fill, 46))
    corpus = ellipsoid(near, (at[0] - 4, at[1] - 16, at[2] - 26), (30 * fill, 26 * fill, 44), coronal=0.35)
    antrum = ellipsoid(near, (0.10 * ax, -0.34 * by, at[2] - 52), (40, 17 * fill, 17 * fill), coronal=-0.2)
    shape = union(union(fundus, corpus, 14.0), antrum, 14.0) + 1.2 * fine[near.box]
    shape = common(shape, free[near.box], 6.0)
    canvas.paint(near, shape, 78.0, Tissue.STOMACH)
    lumen = single(shape + 4.0 + 1.4 * np.abs(fine[near.box]))
    food = single(build.hu["stomach"] + rng.uniform(0, 14) * np.clip(fine[near.box], -1, 2))
    canvas.paint(near, lumen, food, Tissue.STOMACH)
    level = at[1] - rng.uniform(2, 30)
    gas = np.maximum(lumen, canvas.grid.y[None, near.box[1], None] - level)
    canvas.paint(near, gas, GAS, Tissue.AIR)


def paint_gallbladder(canvas: Canvas, build: Build, places: Places) -> None:
    """Thin wall, bile: beside the liver and as dark as a lesion."""
    r = places.gallbladder_radii
    near = canvas.near(places.gallbladder, (r[2] + 5,) * 3)
    shape = ellipsoid(near, places.gallbladder, r, coronal=0.25, sagittal=-0.45)
    canvas.paint(near, shape, 48.0, Tissue.OTHER)
    canvas.paint(near, shape + 1.4, build.hu["gallbladder"], Tissue.GALLBLADDER)


def paint_pancreas(canvas: Canvas, build: Build, free: F32, fine: F32) -> None:
    """Head to tail before the spine, lobulated."""
    rng = build.rng(25)
    sy = build.spine_y
    spots = [
        (-24, sy - 50, -58, 15),
        (-14, sy - 54, -42, 13),
        (4, sy - 60, -32, 10),
        (26, sy - 56, -24, 10),
        (46, sy - 42, -16, 10),
        (64, sy - 26, -8, 9),
    ]
    near = canvas.near((20, sy - 45, -33), (75, 45, 50))
    shape: F32 | None = None
    for x, y, z, r in spots:
        ball = ellipsoid(near, (x, y + rng.uniform(-3, 3), z + rng.uniform(-4, 4)), (r * 1.25, r, r * 1.15))
        shape = ball if shape is None else union(shape, ball, 10.0)
    assert shape is not None
    shape = np.maximum(shape + rng.uniform(1.5, 2.6) * np.abs(fine[near.box]) - 1.0, free[near.box])
    canvas.paint(near, shape, build.hu["pancreas"] + 3 * fine[near.box], Tissue.PANCREAS, 1.6)


def paint_gut(canvas: Canvas, build: Build, free: F32) -> None:
    """Loops of small bowel and colon with fluid, gas, stool or contrast, and the mesentery's vessels between them."""
    rng = build.rng(26)
    ax, by, sy = build.cavity_x, build.cavity_y, build.spine_y
    contrast = rng.random() < 0.25
    for _ in range(70):
        at = np.array((rng.uniform(-0.55, 0.75) * ax, rng.uniform(-0.75, 0.15) * by, rng.uniform(-190, -20)))
        end = at + rng.normal(0, 22, 3)
        near_box = canvas.near((at[0], at[1], at[2]), (30, 30, 30))
        tube = capsule(near_box, (at[0], at[1], at[2]), (end[0], end[1], end[2]), rng.uniform(1.0, 2.2), 0.8)
        canvas.paint(near_box, np.maximum(tube, free[near_box.box]), build.hu["portal"] - 12, Tissue.OTHER)
    loops: list[tuple[Point, float, int]] = []
    for _ in range(75):
        at3 = (rng.uniform(-0.6, 0.85) * ax, rng.uniform(-0.85, 0.25) * by, rng.uniform(-190, -46))
        loops.append((at3, rng.uniform(9, 14.5), 0))
    for x in np.linspace(-0.75, 0.8, 9):
        height = -62 - 40 * (1 - x * x) + 22 * x + rng.uniform(-6, 6)
        loops.append(((x * ax, (-0.72 + 0.12 * abs(x)) * by, height), rng.uniform(15, 21), 1))
    for z in range(-180, -60, 24):
        loops.append(((-0.80 * ax, 0.12 * by, z), rng.uniform(17, 23), 1))
    for z in range(-180, 10, 24):
        loops.append(((0.84 * ax, 0.05 * by, z), rng.uniform(12, 17), 1))
    loops.append(((-30, sy - 40, -58), 13.0, 0))
    loops.append(((-34, sy - 36, -82), 13.0, 0))
    for at3, r, colon in loops:
        near = canvas.near(at3, (1.6 * r,) * 3)
        if near.x.size == 0:
            continue
        long = rng.uniform(1.0, 1.9)
        radii = (r * long, r, r * 1.25) if colon else (r * long, r, r * rng.uniform(0.8, 1.3))
        shape = ellipsoid(near, at3, radii, axial=rng.uniform(-0.8, 0.8), coronal=rng.uniform(-0.6, 0.6))
        shape = common(shape, free[near.box], 4.0)
        canvas.paint(near, shape, build.hu["bowel"], Tissue.BOWEL)
        kind = rng.random()
        inner = shape + (1.8 if colon else 2.6)
        if kind < 0.30 and not colon:
            continue
        stool = rng.uniform(-30, 50) if colon else rng.uniform(8, 45)
        if contrast and rng.random() < 0.5:
            stool = rng.uniform(160, 330)
        canvas.paint(near, inner, float(stool), Tissue.BOWEL)
        if rng.random() < (0.65 if colon else 0.2):
            level = at3[1] + rng.uniform(-0.6, 0.5) * r
            gas = np.maximum(inner, canvas.grid.y[None, near.box[1], None] - level)
            canvas.paint(near, gas, GAS, Tissue.AIR)
