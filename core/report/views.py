"""A case small enough for a page: its liver in at most a hundred slices, 8 bits a pixel, with the labels of both sides.

The image is one WebP, all slices side by side, so that a browser decodes it at once and then scrolls without waiting.
The labels are lossless.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from core.measure.pair import CasePair
from core.report.tables import whole_file
from core.values import BACKGROUND, CLASSES, LIVER, TUMOUR

SIDE = 208
"""Pixels of a slice's longer side, at most."""
SLICES = 100
"""Slices of a view, at most; those with tumour on either side are kept first."""
RANGE_HU = (-250, 350)
"""What becomes 0 and 255: wide enough for the usual windows of the abdomen, which the browser applies."""
LIMIT_BYTES = 260_000
"""Of one view's image and labels together; the image's quality gives way."""
MARGIN_MM = 12.0
"""Around the livers of both sides, in plane."""

_QUALITIES = (80, 76, 72, 65, 58, 50, 40, 30, 22, 15, 8)
_SPACE = 3
"""Slices shown beyond the first and the last with any label."""


@dataclass(frozen=True)
class View:
    """What the page's viewer shows of one case.

    Attributes:
        case, patient: ids.
        shape: voxels z, y, x of the whole scan.
        spacing_mm: z, y, x of the scan's voxels.
        spacing_trusted: whether mm mean anything.
        corner: row and column of the scan where the shown part begins.
        scale: pixels of the view a voxel, at most 1.
        z: the scan's slices that are shown, from the feet, increasing.
        left_out: slices with something to show between the first and the last that are not.
        frame: height and width of a slice, in pixels.
        columns: slices side by side in `image`, row by row; its last row may not be full.
        image: WebP, empty where there is no image.
        labels: zlib over the runs of ``3 * reference + prediction``, slice by slice, row by row: all values (uint8),
            then all lengths less one (uint16, low byte first); longer runs are split.
    """

    case: str
    patient: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    spacing_trusted: bool
    corner: tuple[int, int]
    scale: float
    z: tuple[int, ...]
    left_out: int
    frame: tuple[int, int]
    columns: int
    image: bytes
    labels: bytes

    def decoded(self) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
        """Image (uint8, None without one), prediction and reference, all ``[slices, height, width]``."""
        height, width = self.frame
        count = len(self.z)
        image = None
        if self.image:
            sheet = np.asarray(cv2.imdecode(np.frombuffer(self.image, np.uint8), cv2.IMREAD_GRAYSCALE))
            rows = -(-count // self.columns)
            tiles = sheet.reshape(rows, height, self.columns, width).swapaxes(1, 2)
            image = tiles.reshape(rows * self.columns, height, width)[:count]
        raw = zlib.decompress(self.labels)
        runs = len(raw) // 3
        values, lengths = np.frombuffer(raw, np.uint8, runs), np.frombuffer(raw, "<u2", runs, runs)
        both = np.repeat(values, lengths.astype(np.int64) + 1).reshape(count, height, width)
        return image, both % CLASSES, both // CLASSES


def make_view(pair: CasePair) -> View:
    """The part of a case that its page shows: both livers with a margin, made smaller in plane, few enough slices."""
    shape = pair.pred.shape
    box = pair.box if pair.box[0].stop else tuple(slice(0, n) for n in shape)
    tumour: np.ndarray = np.asarray(pair.slice_counts("tumour")[:, :2].any(axis=1))
    first, last = max(0, box[0].start - _SPACE), min(shape[0], box[0].stop + _SPACE)
    z = choose_slices(tumour, first, last)
    rows, columns = (
        slice(max(0, b.start - round(MARGIN_MM / mm)), min(n, b.stop + round(MARGIN_MM / mm)))
        for b, n, mm in zip(box[1:], shape[1:], pair.spacing_mm[1:], strict=True)
    )
    side = SIDE
    while True:
        scale = min(1.0, side / max(rows.stop - rows.start, columns.stop - columns.start))
        high, wide = (max(1, round((s.stop - s.start) * scale)) for s in (rows, columns))
        frame = (high, wide)
        labels = _runs(np.stack([_both(pair, i, (rows, columns), frame) for i in z]))
        if len(labels) <= LIMIT_BYTES // 2 or max(frame) <= 1:
            break
        # Labels that are all speckles hardly shrink otherwise.
        side = max(1, int(max(frame) * min(0.8, (LIMIT_BYTES / 2 / len(labels)) ** 0.5)))
    sheet_columns = min(len(z), int(np.ceil(np.sqrt(len(z) * frame[0] / frame[1]))))
    image = b""
    if pair.image is not None:
        grey = np.stack([_grey(pair.image[i][rows, columns], frame) for i in z])
        image = _encode(grey, sheet_columns, LIMIT_BYTES - len(labels))
    return View(
        *(pair.case, pair.patient, (shape[0], shape[1], shape[2]), pair.spacing_mm, pair.spacing_trusted),
        *((rows.start, columns.start), scale, tuple(int(i) for i in z), (last - first) - len(z)),
        *(frame, sheet_columns, image, labels),
    )


def choose_slices(tumour: np.ndarray, first: int, last: int, limit: int = SLICES) -> np.ndarray:
    """The slices to show: all from `first` to `last` (exclusive), or at most `limit`, those with tumour before others.

    Args:
        tumour: bool, one a slice of the scan.
        first: the first slice with something to show.
        last: one past the last.
        limit: slices at most.
    """
    every = np.arange(first, last)
    if len(every) <= limit:
        return every
    wanted, others = every[tumour[first:last]], every[~tumour[first:last]]
    if len(wanted) > limit:
        return _spread(wanted, limit)
    return np.sort(np.concatenate((wanted, _spread(others, limit - len(wanted)))))


def write_view(path: Path, view: View) -> None:
    """One ``.npz``, whole or not at all."""
    facts = {name: value for name, value in vars(view).items() if not isinstance(value, bytes)}
    buffer = io.BytesIO()
    as_bytes = {name: np.frombuffer(value, np.uint8) for name, value in vars(view).items() if isinstance(value, bytes)}
    np.savez(buffer, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **as_bytes)  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(buffer.getvalue())


def read_view(path: Path) -> View:
    """What `write_view` wrote."""
    with np.load(path, allow_pickle=False) as file:
        facts = json.loads(file["facts"].tobytes())
        as_bytes = {name: file[name].tobytes() for name in ("image", "labels")}
    lists = {name: tuple(value) for name, value in facts.items() if isinstance(value, list)}
    return View(**{**facts, **lists, **as_bytes})


def _spread(items: np.ndarray, count: int) -> np.ndarray:
    return items[np.round(np.linspace(0, len(items) - 1, count)).astype(int)] if count else items[:0]


def _both(pair: CasePair, z: int, plane: tuple[slice, slice], frame: tuple[int, int]) -> np.ndarray:
    return CLASSES * _small(pair.reference[z][plane], frame) + _small(pair.pred[z][plane], frame)


def _grey(plane: np.ndarray, frame: Sequence[int]) -> np.ndarray:
    low, high = RANGE_HU
    grey = np.clip((plane.astype(np.float32) - low) * (255 / (high - low)), 0, 255)
    if grey.shape != tuple(frame):
        grey = cv2.resize(grey, (frame[1], frame[0]), interpolation=cv2.INTER_AREA)
    return np.rint(grey).astype(np.uint8)


def _small(labels: np.ndarray, frame: Sequence[int]) -> np.ndarray:
    """Labels of one slice in fewer pixels; a tumour of any size keeps at least one."""
    if labels.shape == tuple(frame):
        return np.where(labels > TUMOUR, BACKGROUND, labels).astype(np.uint8)
    size, tumour = (frame[1], frame[0]), labels == TUMOUR
    liver = cv2.resize((tumour | (labels == LIVER)).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    out = np.where(liver >= 0.5, LIVER, BACKGROUND).astype(np.uint8)
    if tumour.any():
        kept = (cv2.resize(tumour.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5).astype(np.uint8)
        near = cv2.dilate(kept, np.ones((3, 3), np.uint8)) > 0
        y, x = np.nonzero(tumour)
        y, x = y * frame[0] // labels.shape[0], x * frame[1] // labels.shape[1]
        lost = ~near[y, x]
        kept[y[lost], x[lost]] = 1
        out[kept > 0] = TUMOUR
    return out


def _runs(both: np.ndarray) -> bytes:
    flat = both.ravel()
    starts = np.concatenate(([0], np.flatnonzero(np.diff(flat)) + 1))
    lengths = np.diff(np.append(starts, len(flat)))
    longest = 1 << 16
    pieces = -(-lengths // longest)
    values = np.repeat(flat[starts], pieces)
    split = np.full(len(values), longest)
    split[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * longest
    return zlib.compress(values.astype(np.uint8).tobytes() + (split - 1).astype("<u2").tobytes(), 9)


def _encode(grey: np.ndarray, columns: int, limit: int) -> bytes:
    """One WebP of at most `limit` bytes; where even the least quality is larger, fine detail goes too."""
    height, width = grey.shape[1:]
    for smoother in range(6):
        if smoother:
            size = (max(1, width >> smoother), max(1, height >> smoother))
            small = [cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in grey]
            grey = np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in small])
        # A part says which quality will do, so that the whole is rarely encoded more than once.
        part, begun = grey[:: max(1, len(grey) // 12)], False
        for quality in _QUALITIES:
            share = len(grey) / len(part)
            if not begun and share > 1 and len(_webp(_sheet(part, columns), quality)) * share > limit:
                continue
            begun = True
            data = _webp(_sheet(grey, columns), quality)
            if len(data) <= limit:
                return data
    return b""


def _sheet(grey: np.ndarray, columns: int) -> np.ndarray:
    count, height, width = grey.shape
    rows = -(-count // columns)
    tiles = np.zeros((rows * columns, height, width), np.uint8)
    tiles[:count] = grey
    return tiles.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)


def _webp(sheet: np.ndarray, quality: int) -> bytes:
    done, data = cv2.imencode(".webp", sheet, [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not done:
        raise RuntimeError("OpenCV cannot write WebP")
    return bytes(data)
