"""Small synthetic pairs on which Hepar's metrics are compared with those of independent public packages."""

import hashlib

import numpy as np

SPACINGS = ((2.5, 0.8, 0.7), (5.0, 0.68, 0.9), (1.0, 1.0, 1.0), (3.2, 1.0, 1.0))
COUNT = 24


def make_pairs():
    """Labels of prediction and reference ``[Z, Y, X]``, and the spacing; a liver with lesions in each.

    The prediction is moved, blown up, frayed; it misses lesions, invents some, joins some and splits others. In every
    fourth pair the liver reaches the array's ends. The last two have a tumour on one side alone.
    """
    out = []
    for number in range(COUNT):
        rng = np.random.default_rng(1000 + number)
        shape = (12 + number % 3, 34, 30)
        at = np.indices(shape, np.float64)
        reach = 1.6 if number % 4 == 3 else 0.85
        liver = [n / 2 - 0.5 for n in shape], [n * reach / 2 for n in shape]
        lesions = [_lesion(rng, shape) for _ in range(rng.integers(3, 9))]
        ref = _draw(at, liver, lesions)
        moved = [(centre + rng.normal(0, 0.4, 3), radii * rng.uniform(0.85, 1.3, 3)) for centre, radii in lesions[1:]]
        invented = [_lesion(rng, shape) for _ in range(rng.integers(0, 3))]
        grown = [c + rng.normal(0, 0.5) for c in liver[0]], [r * rng.uniform(0.9, 1.08) for r in liver[1]]
        pred = _draw(at, grown, [*moved, *invented])
        frayed = rng.random(shape) < 0.0015
        pred[frayed] = rng.integers(0, 3, int(frayed.sum()))
        if number == COUNT - 2:
            ref = np.minimum(ref, 1)
        if number == COUNT - 1:
            pred = np.minimum(pred, 1)
        out.append((pred, ref, SPACINGS[number % len(SPACINGS)]))
    return out


def confluent():
    """A row of voxels in which the best single match costs the other lesion its only partner."""
    pred, ref = np.zeros((1, 1, 24), np.uint8), np.zeros((1, 1, 24), np.uint8)
    ref[..., :10] = ref[..., 14:20] = 2
    pred[..., :2] = pred[..., 3:16] = 2
    return pred, ref, (1.0, 1.0, 1.0)


def fingerprint(pairs):
    """What recorded figures belong to."""
    digest = hashlib.sha256()
    for pred, ref, spacing in pairs:
        digest.update(pred.tobytes() + ref.tobytes() + repr((pred.shape, spacing)).encode())
    return digest.hexdigest()


def _lesion(rng, shape):
    return np.array([rng.uniform(0.15, 0.85) * n for n in shape]), rng.uniform((0.8, 1.2, 1.2), (2, 3.5, 3.5))


def _draw(at, liver, lesions):
    labels = _inside(at, *liver).astype(np.uint8)
    for centre, radii in lesions:
        labels[_inside(at, centre, radii) & (labels > 0)] = 2
    return labels


def _inside(at, centre, radii):
    return sum(((axis - c) / r) ** 2 for axis, c, r in zip(at, centre, radii, strict=True)) <= 1
