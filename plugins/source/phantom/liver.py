"""The liver: its shape, and the trees of portal and hepatic veins inside it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plugins.source.phantom.body import Build, Tissue, dome_height, wall_depth
from plugins.source.phantom.fields import (
    F32,
    Canvas,
    Field,
    Grid,
    Point,
    Space,
    capsule,
    common,
    ellipsoid,
    single,
    union,
)


@dataclass(frozen=True)
class Places:
    """Where the liver's neighbours press into it; x, y, z in mm."""

    ivc: tuple[float, float]
    hilum: Point
    gallbladder: Point
    gallbladder_radii: Point
    kidney: Point
    stomach: Point


BELLY_TURN = 0.32


def belly_of(build: Build) -> tuple[Point, Point]:
    """Centre and radii of the room below the liver that hollows its lower face."""
    ax, by = build.cavity_x, build.cavity_y
    return (0.26 * ax, 0.16 * by, -74.0), (0.72 * ax, 0.78 * by, 88.0)


def draw_places(build: Build) -> Places:
    """Draw where the neighbours lie."""
    rng = build.rng(10)
    ax, by = build.cavity_x, build.cavity_y
    hilum = (-20.0 + rng.uniform(-6, 6), -0.10 * by + rng.uniform(-4, 4), -4.0 + rng.uniform(-8, 8))
    radius = rng.uniform(10, 17)
    # the gallbladder hangs half sunk in the lower face, before the hilum
    way = np.array((-0.72 + rng.uniform(-0.08, 0.12), -0.62 + rng.uniform(-0.1, 0.1), rng.uniform(0.12, 0.4)))
    way *= rng.uniform(0.93, 1.0) / np.linalg.norm(way)
    centre, radii = belly_of(build)
    across, along, up = (float(w * r) for w, r in zip(way, radii, strict=True))
    c, s = math.cos(BELLY_TURN), math.sin(BELLY_TURN)
    bile = (centre[0] + c * across - s * up, centre[1] + along, centre[2] + s * across + c * up)
    return Places(
        ivc=(-19.0 + rng.uniform(-3, 3), build.spine_y - 27.0),
        hilum=hilum,
        gallbladder=bile,
        gallbladder_radii=(radius, radius * rng.uniform(0.95, 1.15), radius * rng.uniform(1.7, 2.4)),
        kidney=(-56.0 - rng.uniform(0, 7), build.spine_y + 6.0 + rng.uniform(-3, 3), -78.0 + rng.uniform(-12, 14)),
        stomach=(0.42 * ax, -0.18 * by + rng.uniform(-5, 5), 16.0 + rng.uniform(-8, 8)),
    )


class LiverShape:
    """The liver as a function of position, fitted to a volume once, so that every scan shows the same organ."""

    def __init__(self, build: Build, places: Places) -> None:
        rng = build.rng(11)
        self.build, self.places = build, places
        self.left_reach = rng.uniform(0.0, 0.28)
        self.tail = rng.uniform(-14, 12)
        self.lift = rng.uniform(-6, 6)
        self.fissure_x = rng.uniform(8, 22)
        self.fissure_up = rng.uniform(-12, 18)
        self.bumps = Field(rng, 30.0)
        self.swell = 0.0
        axis = np.arange(-200, 200, 5, dtype=np.float32)
        grid = Grid(np.arange(-170, 120, 5, dtype=np.float32), axis, axis)
        space = Space(*build.warp()(grid.z, grid.y, grid.x), (slice(None),) * 3)
        cavity = wall_depth(space, build, 0.0)[1]
        lining = single((space.z - dome_height(space, build)) * 0.8)
        lobes, bounds = self.parts(space, grid, cavity, lining)
        natural = float((common(lobes, bounds, 5.0) < 0).sum()) * 0.125
        self.target_ml = float(np.clip(natural * rng.uniform(0.88, 1.12), 1030, 2080))
        low, high = -16.0, 16.0
        for _ in range(18):
            self.swell = (low + high) / 2
            volume = float((common(lobes - self.swell, bounds, 5.0) < 0).sum()) * 0.125
            low, high = (self.swell, high) if volume < self.target_ml else (low, self.swell)
        self.coarse_grid = grid
        self.coarse: F32 = common(lobes - np.float32(self.swell), bounds, 5.0)

    def parts(self, space: Space, grid: Grid, cavity: F32, lining: F32) -> tuple[F32, F32]:
        """The lobes, and what bounds them."""
        build, places = self.build, self.places
        ax, by = build.cavity_x, build.cavity_y
        up = self.lift
        right = ellipsoid(space, (-0.50 * ax, 0.06 * by, 2 + up), (0.60 * ax, 0.98 * by, 82), coronal=0.12)
        tail = ellipsoid(space, (-0.66 * ax, 0.12 * by, -58 + self.tail), (0.30 * ax, 0.60 * by, 52), coronal=-0.15)
        left = ellipsoid(
            space, (-0.02 * ax, -0.44 * by, 26 + up), (0.52 * ax, 0.46 * by, 46), axial=0.12, coronal=-0.18
        )
        tip = ((0.26 + self.left_reach / 2) * ax, -0.50 * by, 36 + up)
        wedge = ellipsoid(space, tip, ((0.38 + self.left_reach) * ax, 0.30 * by, 28), axial=0.2, coronal=-0.2)
        caudate = ellipsoid(space, (places.ivc[0] + 12, places.ivc[1] - 17, 18), (15, 11, 28), axial=0.3)
        lobes = union(union(right, tail, 30.0), union(left, wedge, 26.0), 26.0)
        bumps = self.bumps(grid.z, grid.y, grid.x)
        lobes = union(lobes, caudate, 8.0) + 1.5 * bumps

        bounds = common(cavity + 2.2, lining + 0.9, 12.0)
        belly = ellipsoid(space, *belly_of(build), coronal=BELLY_TURN)
        bounds = common(bounds, -belly, 18.0)
        gut = ellipsoid(space, (0.10 * ax, 0.42 * by, 25), (0.33 * ax, 0.42 * by, 400))
        bounds = common(bounds, -gut, 12.0)
        bounds = np.where(caudate < 1.0, np.minimum(bounds, caudate), bounds)
        spine = np.sqrt((space.x - 6) ** 2 + (space.y - build.spine_y) ** 2) - 32
        bounds = common(bounds, -spine, 8.0)
        back = ellipsoid(space, (-31, build.spine_y + 33, 0), (31, 23, 500), axial=0.25)
        bounds = common(bounds, -back, 8.0)
        kidney = ellipsoid(space, (places.kidney[0] + 3, places.kidney[1] + 9, places.kidney[2]), (35, 46, 60))
        bounds = common(bounds, -kidney, 8.0)
        cava = np.sqrt((space.x - places.ivc[0]) ** 2 + (1.1 * (space.y - places.ivc[1])) ** 2) - 13.0
        bounds = common(bounds, -single(cava), 3.0)
        bile = ellipsoid(space, places.gallbladder, places.gallbladder_radii, coronal=0.25, sagittal=-0.45)
        bounds = common(bounds, 1.8 - bile, 3.0)
        x, y, z = (at - middle for at, middle in zip(space[:3], places.hilum, strict=True))
        porta = np.sqrt((x / 22) ** 2 + (y / 8) ** 2 + (z / 9) ** 2) * 8 - 8
        bounds = common(bounds, -single(porta), 4.0)
        # the fissures of the ligamentum teres, opening downwards, and of the ligamentum venosum beside the caudate
        height = space.z - self.fissure_up
        slit = np.abs(space.x - self.fissure_x - 0.18 * (space.y + 0.5 * by) + 2.2 * bumps) - np.clip(
            1.6 - 0.085 * height, 0.3, 7.0
        )
        slit = np.maximum(np.maximum(slit, height - 16 - 4 * bumps), space.y - places.hilum[1] + 6)
        venosum = np.abs(space.y - places.ivc[1] + 29 - 0.25 * (space.x - places.ivc[0]) + 2.5 * bumps) - 1.3
        venosum = np.maximum(np.maximum(venosum, np.abs(space.x - places.ivc[0] - 20) - 17), np.abs(space.z - 22) - 26)
        bounds = common(bounds, -slit, 3.0)
        bounds = common(bounds, -venosum, 2.0)
        return single(lobes), single(bounds)

    def __call__(self, canvas: Canvas, cavity: F32, lining: F32) -> F32:
        """The shape on a scan's grid."""
        low, high = self.extent_z()
        build = self.build
        middle = (-0.1 * build.cavity_x, 0.0, (low + high) / 2)
        box = canvas.grid.box(middle, (build.cavity_x + 10, build.cavity_y + 14, (high - low) / 2 + 12))
        z, y, x = box
        grid = Grid(canvas.grid.z[z], canvas.grid.y[y], canvas.grid.x[x])
        lobes, bounds = self.parts(canvas.space.crop(box), grid, cavity[box], lining[box])
        liver: F32 = np.full(canvas.grid.shape, 50.0, np.float32)
        liver[box] = common(lobes - np.float32(self.swell), bounds, 5.0)
        return liver

    def extent_z(self) -> tuple[float, float]:
        """Heights of the liver's lowest and highest point, to the coarse grid's 5 mm."""
        inside = self.coarse_grid.z[(self.coarse < 0).any(axis=(1, 2))]
        return float(inside[0]), float(inside[-1])

    def at(self, point: Point) -> float:
        """The coarse shape nearest a point that is given in unwarped mm."""
        grid = self.coarse_grid
        axes = zip((grid.z, grid.y, grid.x), point[::-1], strict=True)
        z, y, x = (int(np.abs(axis - value).argmin()) for axis, value in axes)
        return float(self.coarse[z, y, x])


Piece = tuple[Point, Point, float, float]


def point(values: npt.NDArray[np.float64]) -> Point:
    """An array of three as a tuple."""
    return float(values[0]), float(values[1]), float(values[2])


def grow(
    rng: np.random.Generator,
    start: Point,
    heading: Point,
    radius: float,
    length: float,
    pieces: list[Piece],
    shape: LiverShape,
) -> None:
    """One vessel that bends, thins, sheds side branches and forks until it is too fine to see."""
    at = np.array(start)
    way = np.array(heading) / np.linalg.norm(heading)
    step = 7.0
    walked = 0.0
    while radius > 0.7 and len(pieces) < 420:
        bend = rng.normal(0, 0.16, 3)
        way = way + bend
        way /= np.linalg.norm(way)
        end = at + step * way
        inside = shape.at(point(end))
        if inside > -5 and walked > 14:
            return
        thinner = radius * 0.962
        pieces.append((point(at), point(end), radius, thinner))
        at, radius = end, thinner
        walked += step
        if walked >= length:
            side = np.cross(way, rng.normal(0, 1, 3))
            side /= np.linalg.norm(side)
            for sign, share in ((1, rng.uniform(0.72, 0.88)), (-1, rng.uniform(0.55, 0.78))):
                turn = way + sign * rng.uniform(0.45, 0.8) * side
                grow(rng, point(at), point(turn), radius * share, length * rng.uniform(0.65, 0.95), pieces, shape)
            return
        if rng.random() < 0.33 and radius > 1.3:
            side = np.cross(way, rng.normal(0, 1, 3))
            side /= np.linalg.norm(side)
            turn = 0.6 * way + side
            grow(rng, point(at), point(turn), radius * rng.uniform(0.4, 0.6), length * 0.6, pieces, shape)


def paint_liver(canvas: Canvas, shape: LiverShape, liver: F32) -> None:
    """Parenchyma with its texture, then the vessels."""
    build, places, grid = shape.build, shape.places, canvas.grid
    rng = build.rng(12)
    touched = [np.flatnonzero((liver < 6).any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    z, y, x = (slice(int(hit[0]), int(hit[-1]) + 1) for hit in touched)
    box = (z, y, x)
    space, liver = canvas.space.crop(box), liver[box]
    part = (grid.z[z], grid.y[y], grid.x[x])
    texture = 1.6 * Field(rng, 5.0)(*part) + 1.6 * Field(rng, 12.0)(*part) + 2.2 * Field(rng, 55.0)(*part)
    canvas.paint(space, liver, build.hu["liver"] + texture, Tissue.LIVER)

    for kind, roots in (("hepatic", hepatic_roots(rng, shape)), ("portal", portal_roots(places))):
        pieces: list[Piece] = []
        for start, heading, radius, length in roots:
            own: list[Piece] = []
            grow(rng, start, heading, radius, length, own, shape)
            pieces += own
        for begin, end, r0, r1 in pieces:
            middle = ((begin[0] + end[0]) / 2, (begin[1] + end[1]) / 2, (begin[2] + end[2]) / 2)
            near = canvas.space.crop(grid.box(middle, (16, 16, 16)))
            if near.x.size == 0:
                continue
            tube = capsule(plain(grid, near), begin, end, r0, r1)
            inside = canvas.tissue[near.box] >= Tissue.LIVER
            tube = np.where(inside, tube, np.float32(9))
            canvas.paint(near, tube, build.hu[kind], Tissue.LIVER_VESSEL)


def plain(grid: Grid, space: Space) -> Space:
    """The unwarped coordinates of a box: vessels grow in true mm, where the liver's shape was looked up."""
    z, y, x = space.box
    return Space(grid.x[None, None, x], grid.y[None, y, None], grid.z[z, None, None], space.box)


def hepatic_roots(rng: np.random.Generator, shape: LiverShape) -> list[tuple[Point, Point, float, float]]:
    """Where the three hepatic veins and a lower one leave the cava: start, heading, radius, length."""
    x, y = shape.places.ivc
    top = shape.build.dome - 26
    wide = rng.uniform(0.9, 1.15)
    return [
        ((x - 8, y - 6, top), (-1.0, -0.25, -0.35), 5.2 * wide, 42.0),
        ((x - 1, y - 11, top), (-0.35, -1.0, -0.4), 4.9 * wide, 46.0),
        ((x + 6, y - 10, top), (0.55, -1.0, -0.15), 4.5 * wide, 38.0),
        ((x - 10, y - 2, top - 50), (-1.0, -0.1, -0.3), 2.4 * wide, 30.0),
    ]


def portal_roots(places: Places) -> list[tuple[Point, Point, float, float]]:
    """Where the portal vein's branches enter: start, heading, radius, length."""
    x, y, z = places.hilum
    return [
        ((x - 12, y + 2, z + 2), (-1.0, -0.15, 0.35), 5.4, 24.0),
        ((x - 18, y + 4, z + 1), (-0.9, 0.5, -0.4), 4.6, 30.0),
        ((x + 2, y - 4, z + 6), (0.55, -0.9, 0.5), 4.4, 28.0),
    ]
