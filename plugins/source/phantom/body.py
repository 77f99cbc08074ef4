"""One person's build, and the frame around the organs of the belly: trunk wall, ribs, spine, lungs and heart."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

import numpy as np

from plugins.source.phantom.fields import (
    F32,
    Canvas,
    Field,
    Point,
    Space,
    Warp,
    capsule,
    common,
    ellipsoid,
    single,
    union,
)


class Tissue(IntEnum):
    """What a voxel of the tissue map mostly is; 0 is air outside the body and inside the gut."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    LUNG = 4
    BONE_CORTICAL = 5
    BONE_TRABECULAR = 6
    CARTILAGE = 7
    AORTA = 8
    IVC = 9
    PORTAL_VEIN = 10
    KIDNEY = 11
    SPLEEN = 12
    STOMACH = 13
    BOWEL = 14
    PANCREAS = 15
    GALLBLADDER = 16
    HEART = 17
    LIVER = 18
    LIVER_VESSEL = 19
    LESION = 20
    CYST = 21
    TABLE = 22
    OTHER = 23


@dataclass(frozen=True)
class Build:
    """Sizes in mm and enhancement in HU of one person; `seed` roots everything drawn for the body."""

    seed: tuple[int, ...]
    half_width: float
    half_depth: float
    fat_mm: float
    wall_mm: float
    spine_y: float
    dome: float
    hu: dict[str, float]

    @property
    def cavity_x(self) -> float:
        """Half the cavity's width in mm."""
        return self.half_width - 1.15 * self.fat_mm - self.wall_mm

    @property
    def cavity_y(self) -> float:
        """Half the cavity's depth in mm."""
        return self.half_depth - 0.8 * self.fat_mm - self.wall_mm

    def rng(self, part: int) -> np.random.Generator:
        """Every organ has a stream of its own: adding a draw to one moves none of the others."""
        return np.random.default_rng((*self.seed, part))

    def warp(self) -> Warp:
        """The same warp every time, for every scan of this person."""
        return Warp(self.rng(0))


def draw_build(seed: tuple[int, ...]) -> Build:
    """Draw a person: frame, fat, and how the tissues enhance."""
    rng = np.random.default_rng((*seed, 99))
    frame = rng.uniform(0.0, 1.0)
    fat = float(np.clip(rng.lognormal(np.log(15.0), 0.42), 6.0, 32.0))
    half_width = 132.0 + 18.0 * frame + 1.15 * fat + rng.uniform(-4, 4)
    half_depth = 0.655 * (122.0 + 18.0 * frame) + 0.95 * fat + rng.uniform(2, 12)
    liver = float(np.clip(rng.normal(109.0, 6.5), 95.0, 121.0))
    blood = float(np.clip(liver + rng.uniform(44, 64), 145.0, 180.0))
    hu = {
        "liver": liver,
        "portal": blood,
        "hepatic": blood - rng.uniform(2, 14),
        "aorta": float(np.clip(blood + rng.uniform(-10, 10), 142, 184)),
        "ivc": blood - rng.uniform(8, 32),
        "spleen": float(np.clip(liver + rng.uniform(2, 20), 106, 134)),
        "kidney": rng.uniform(162, 208),
        "muscle": rng.uniform(57, 69),
        "fat": rng.uniform(-112, -98),
        "trabecular": rng.uniform(140, 225),
        "pancreas": rng.uniform(82, 108),
        "gallbladder": rng.uniform(4, 16),
        "stomach": rng.uniform(5, 38),
        "bowel": rng.uniform(75, 100),
    }
    wall, dome = rng.uniform(11, 16), rng.uniform(66, 80)
    return Build(seed, half_width, half_depth, fat, wall, half_depth / 1.05 - 0.5 * fat - 64.0, dome, hu)


def wall_depth(space: Space, build: Build, fat_noise: F32 | float) -> tuple[F32, F32, F32, F32]:
    """Depth below the skin, distance outside the cavity, place around the trunk (0 back, 1 front), wall thickness."""
    power = 2.25  # squarer than an ellipse
    # the table flattens the back, and the flanks widen a little towards the hips
    flat = np.where(space.y > 0, np.float32(1.05), np.float32(1.0))
    width = build.half_width * (1 - 0.00025 * space.z)
    across, along = np.abs(space.x / width), np.abs(flat * space.y / build.half_depth)
    rho = (across**2 * np.sqrt(np.sqrt(across)) + along**2 * np.sqrt(np.sqrt(along))) ** np.float32(1 / power)
    radius = np.sqrt(space.x**2 + space.y**2) + np.float32(1e-3)
    depth = radius * (1 / np.maximum(rho, np.float32(1e-3)) - 1)
    side = (space.x / radius) ** 2
    low = np.clip((60.0 - space.z) / 120.0, 0, 1.4)
    fat = build.fat_mm * (0.45 + 0.55 * side + 0.35 * low + 0.17 * fat_noise)
    # the straight muscles beside the midline, thinning to the linea alba between them and to the flank outside
    front = space.y < 0
    middle = np.exp(-((space.x / 9) ** 2)) + 0.55 * np.exp(-(((np.abs(space.x) - 0.52 * build.half_width) / 14) ** 2))
    wall = build.wall_mm * (0.78 + 0.3 * side - 0.62 * middle * front * np.clip((62 - space.z) / 40, 0, 1))
    # the back's long muscles, with the ribs before them
    wall = wall + 27 * np.exp(-((space.x / 54) ** 4)) * np.clip(space.y / 25, 0, 1)
    around = 1 - np.arctan2(np.abs(space.x), -space.y) / np.float32(np.pi)
    cavity = single(np.maximum(fat, 2.5) + wall - depth)
    return single(depth), cavity, single(around), single(0.94 * wall)


def dome_height(space: Space, build: Build) -> F32:
    """Height of the diaphragm above each point; the right dome stands higher, over the liver."""
    x, y = space.x, space.y + 0.12 * build.cavity_y
    ax, by = build.cavity_x, build.cavity_y
    right = build.dome - 58 * (((x + 0.46 * ax) / (0.66 * ax)) ** 2 + (y / (1.12 * by)) ** 2)
    left = build.dome - 16 - 62 * (((x - 0.46 * ax) / (0.64 * ax)) ** 2 + (y / (1.12 * by)) ** 2)
    return -union(single(-right), single(-left), 22.0)


def paint_frame(canvas: Canvas, build: Build) -> tuple[F32, F32]:
    """Paint all that is not an organ of the belly; returns the cavity's lining and the diaphragm as shapes."""
    space, grid, hu = canvas.space, canvas.grid, build.hu
    rng = build.rng(1)
    fat_noise = Field(rng, 45.0)(grid.z, grid.y, grid.x)
    fine = Field(rng, 7.0)(grid.z, grid.y, grid.x)
    depth, cavity, around, thickness = wall_depth(space, build, fat_noise)
    paint_table(canvas, build)
    canvas.paint(space, -depth, 45.0, Tissue.SKIN)
    canvas.paint(space, 2.2 - depth, hu["fat"] + 3.0 * fine, Tissue.FAT)
    muscle = hu["muscle"] + 3.0 * fine
    outer = common(cavity - thickness, 2.5 - depth, 1.0)
    canvas.paint(space, outer, muscle, Tissue.MUSCLE)
    # fat between the three sheets of the flank
    below = np.clip((space.z - 30) * 0.2, 0, 9)
    for share in (0.38, 0.7):
        sheet = np.abs(cavity - thickness * share + 0.6 * fine) - 0.55 + 3 * np.abs(around - 0.55) + 0.15 * below
        canvas.paint(space, sheet, hu["fat"], None)
    canvas.paint(space, cavity + 0.5, hu["fat"] + 4.0 * fine, Tissue.FAT)
    paint_ribs(canvas, build, cavity, around)

    dome = dome_height(space, build) + 1.2 * fat_noise
    canvas.paint(space, common(cavity + 1.0, dome - space.z - 2.2, 2.0), hu["muscle"], Tissue.MUSCLE)
    lung = np.maximum(cavity + 1.5, dome - space.z)
    canvas.paint(space, lung, -855 + 18 * fat_noise, Tissue.LUNG)
    paint_chest(canvas, build, lung)
    sternum = 4.5 * (np.sqrt((space.x / 15) ** 2 + ((cavity - 6) / 4.5) ** 2) - 1)
    sternum = np.maximum(np.maximum(sternum, space.y), build.dome - 4 - space.z)
    canvas.paint(space, sternum, 230.0, Tissue.BONE_CORTICAL)
    paint_back(canvas, build, fine)
    paint_spine(canvas, build, fine)
    return cavity, single((space.z - dome) * 0.8)


def paint_table(canvas: Canvas, build: Build) -> None:
    """Two thin curved shells under the back."""
    grid = canvas.grid
    rng = build.rng(2)
    bottom = build.half_depth / 1.05 + rng.uniform(3, 9)
    bend = rng.uniform(0.0009, 0.0016)
    x, y = grid.x[None, None, :], grid.y[None, :, None]
    space = canvas.space
    for offset, thick in ((0.0, 1.3), (rng.uniform(18, 30), 1.0)):
        shell = np.abs(y - bottom - offset + bend * x * x) - thick
        shell = np.maximum(shell, np.abs(x) - 195 + offset).astype(np.float32)
        canvas.paint(space, np.broadcast_to(shell, grid.shape), 180.0, Tissue.TABLE)


def paint_ribs(canvas: Canvas, build: Build, cavity: F32, around: F32) -> None:
    """Ribs run down and forward, so that a slice cuts them as a row of slanting ovals."""
    rng = build.rng(3)
    space = canvas.space
    start, drop, pitch = rng.uniform(-14, 6), rng.uniform(125, 150), rng.uniform(23, 26)
    run = space.z - start + drop * around**1.15
    number = np.round(run / pitch)
    across = (run - number * pitch) / 5.4
    through = (cavity - 5.4) / 3.6
    shape = 4.0 * (np.sqrt(across**2 + through**2) - 1)
    reach = np.clip(0.30 + 0.11 * number, 0.0, 0.76)
    ahead = (around - reach) * 120
    bone = np.maximum(shape, ahead)
    bone = np.where(number < 0, np.float32(9), bone).astype(np.float32)
    gristle = np.maximum(np.maximum(shape - 0.5, -ahead), (around - 0.93) * 120)
    gristle = np.where(number < 2, np.float32(9), gristle).astype(np.float32)
    canvas.paint(space, gristle, 105.0, Tissue.CARTILAGE)
    canvas.paint(space, bone, np.where(bone < -1.7, np.float32(190), np.float32(430)), Tissue.BONE_CORTICAL)


def paint_chest(canvas: Canvas, build: Build, lung: F32) -> None:
    """Heart, its fat, and the lungs' vessels."""
    rng = build.rng(4)
    hu = build.hu
    centre = (14.0 + rng.uniform(0, 10), -0.24 * build.cavity_y, build.dome + 15)
    sac = ellipsoid(canvas.space, centre, (68, 56, 52), axial=0.35, coronal=-0.1)
    middle = ellipsoid(canvas.space, (4, 0.36 * build.cavity_y, build.dome), (30, 46, 400))
    front = ellipsoid(canvas.space, (4, -0.98 * build.cavity_y, build.dome), (40, 34, 400))
    hilum = np.maximum(union(union(sac, middle, 12.0), front, 12.0), lung)
    canvas.paint(canvas.space, hilum, hu["fat"] + 6, Tissue.FAT)
    heart = np.maximum(ellipsoid(canvas.space, centre, (58, 46, 47), axial=0.35, coronal=-0.1), lung + 3)
    canvas.paint(canvas.space, heart, 100.0, Tissue.HEART)
    for shift, radii in (((16, 6, 4), (25, 22, 40)), ((-22, -6, 4), (22, 26, 38)), ((-26, 22, 12), (18, 14, 30))):
        at = (centre[0] + shift[0], centre[1] + shift[1], centre[2] + shift[2])
        chamber = np.maximum(ellipsoid(canvas.space, at, radii, axial=0.3), heart + 5)
        canvas.paint(canvas.space, chamber, hu["aorta"] - 8, Tissue.HEART)
    for _ in range(46):
        side = rng.choice((-1, 1))
        x, y = side * rng.uniform(55, 0.9 * build.cavity_x), rng.uniform(-0.5, 0.8) * build.cavity_y
        at = (x, y, build.dome + rng.uniform(-45, 50))
        end = (at[0] + side * rng.uniform(4, 16), at[1] + rng.uniform(-8, 14), at[2] + rng.uniform(-16, 4))
        near = canvas.near(at, (20, 20, 20))
        tube = capsule(near, at, end, rng.uniform(1.3, 2.8), 0.8)
        canvas.paint(near, np.maximum(tube, lung[near.box] + 2), 20.0, Tissue.LUNG)


def paint_back(canvas: Canvas, build: Build, fine: F32) -> None:
    """The back's long muscles, psoas and the diaphragm's crura."""
    rng = build.rng(5)
    hu, sy = build.hu, build.spine_y
    streaks = hu["muscle"] + 4 * fine - rng.uniform(6, 26) * np.clip(fine - 0.5, 0, 2)
    bulk = rng.uniform(0.9, 1.1)
    for side in (-1, 1):
        near = canvas.near((side * 31, sy + 33, 0), (42, 36, 400))
        long = ellipsoid(near, (side * 31, sy + 33, 0), (27 * bulk, 19 * bulk, 500), axial=-side * 0.25)
        canvas.paint(near, long, streaks[near.box], Tissue.MUSCLE)
        near = canvas.near((side * 36, sy + 2, -120), (40, 40, 130))
        psoas = ellipsoid(near, (side * 34, sy + 3, -150), (17 * bulk, 19 * bulk, 125), axial=side * 0.4)
        canvas.paint(near, psoas, streaks[near.box], Tissue.MUSCLE)
        near = canvas.near((side * 13, sy - 16, 0), (40, 40, 130))
        crus = ellipsoid(near, (side * 17, sy - 19, 8), (6.5, 19, 85), axial=-side * 0.45)
        canvas.paint(near, crus, hu["muscle"], Tissue.MUSCLE)


def paint_spine(canvas: Canvas, build: Build, fine: F32) -> None:
    """Bodies, discs, arches and processes at a regular pitch, and the canal."""
    rng = build.rng(6)
    sy, pitch, start = build.spine_y, rng.uniform(32, 36), rng.uniform(-16, 16)
    near = canvas.near((0, sy + 22, 0), (56, 60, 400))
    x, y, z = near.x, near.y - sy, near.z
    fine = fine[near.box]
    level = np.abs((z - start + pitch / 2) % pitch - pitch / 2)  # 0 at a body's middle
    waist = 1 - 0.07 * np.cos(level / pitch * 2 * np.pi)
    body = ellipsoid(Space(x, y, np.zeros_like(x), near.box), (0, 0, 0), (22.5, 16.5, 400)) + 22 * (waist - 0.95)
    body = np.maximum(body, y - 13)
    disc = pitch / 2 - 3.4
    canvas.paint(near, body, 88.0, Tissue.CARTILAGE)
    bone = np.maximum(body, level - disc)
    trabecular = build.hu["trabecular"] + 14 * fine
    canvas.paint(near, bone, np.where(bone > -1.9, np.float32(380), trabecular), Tissue.BONE_CORTICAL)
    canvas.tissue[near.box][bone < -3.0] = Tissue.BONE_TRABECULAR
    arch_level = np.abs((z - start + 6 + pitch / 2) % pitch - pitch / 2)
    canal = np.sqrt(x**2 + (1.1 * (y - 23)) ** 2 + 5 * np.abs(x) * np.clip(0.12 * (y - 20), 0, 2)) - 9.5
    arch = np.maximum(np.abs(canal - 2.6) - 2.5, arch_level - 9 - 5 * (y > 24))
    wings = np.sqrt((np.abs(x) / 38) ** 2 + ((y - 25 - 0.12 * np.abs(x)) / 5.5) ** 2 + (arch_level / 8) ** 2) - 1
    spine = np.maximum(np.sqrt((x / 3.6) ** 2 + ((y - 43) / 16) ** 2) - 1, (arch_level - 10) / 5)
    back = np.minimum(arch, np.minimum(5 * wings, 3.5 * spine)).astype(np.float32)
    canvas.paint(near, back, np.where(back < -2.0, np.float32(230), np.float32(420)), Tissue.BONE_CORTICAL)
    canvas.paint(near, canal, -20.0, Tissue.OTHER)
    canvas.paint(near, canal + 2.2, 32.0, Tissue.OTHER)


def centre_line(points: list[Point]) -> list[Point]:
    """A polyline with its corners rounded."""
    line = points
    for _ in range(2):
        cut: list[Point] = [line[0]]
        for a, b in pairwise(line):
            for t in (0.25, 0.75):
                cut.append((a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1]), a[2] + t * (b[2] - a[2])))
        line = [*cut, line[-1]]
    return line
