"""What lies over an image, or what is left of it: fog, spatter, lines, edges (Mu and Gilmer 2019).

Images are ``(n, channels, height, width)`` in [0, 1]; all channels get the same.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedsafe.assess.corruptions.blurs import smooth

Images = NDArray[np.float64]

_MAPS, _MAP_SIDE = 32, 256
# A line fades to nothing at this distance in pixels.
_FADE = 2.3


def fog(x: Images, severity: int, rng: np.random.Generator) -> Images:
    """Adds a fractal cloud, and darkens so that the brightest pixel stays as it was.

    Windows of at most 32 clouds, which are periodic, are taken at random places.
    """
    strength, decay = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))[severity - 1]
    n, _, height, width = x.shape
    side = max(_MAP_SIDE, 1 << (max(height, width) - 1).bit_length())
    clouds = plasma(min(n, _MAPS), side, decay, rng)
    which = rng.integers(0, len(clouds), size=(n,))
    top, left = (rng.integers(0, side, n) for _ in range(2))
    rows = (top[:, None, None] + np.arange(height)[None, :, None]) % side
    columns = (left[:, None, None] + np.arange(width)[None, None, :]) % side
    cloud = clouds[which[:, None, None], rows, columns][:, None]
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    return np.asarray(np.clip((x + strength * cloud) * brightest / (brightest + strength), 0, 1))


def plasma(count: int, side: int, decay: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """``(count, side, side)`` periodic fractal maps in [0, 1] by midpoint displacement (Fournier et al. 1982).

    The side is a power of two. Each new point is the mean of four neighbours and a uniform number, whose range starts
    at 10,000 and is divided by the square of the decay for each halving of the step.
    """
    points = np.zeros((count, side, side))
    step, reach = side, 100.0
    while step >= 2:
        half = step // 2

        def moved(mean: NDArray[np.float64], by: float = reach**2) -> NDArray[np.float64]:
            return mean + rng.uniform(-by, by, mean.shape)

        corners = points[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=1)
        points[:, half::step, half::step] = moved((pairs + np.roll(pairs, -1, axis=2)) / 4)
        middles, corners = points[:, half::step, half::step], points[:, ::step, ::step]
        above = middles + np.roll(middles, 1, axis=1)
        points[:, ::step, half::step] = moved((above + corners + np.roll(corners, -1, axis=2)) / 4)
        beside = middles + np.roll(middles, 1, axis=2)
        points[:, half::step, ::step] = moved((beside + corners + np.roll(corners, -1, axis=1)) / 4)
        step, reach = half, reach / decay
    points -= points.min(axis=(1, 2), keepdims=True)
    return np.asarray(points / points.max(axis=(1, 2), keepdims=True))


def spatter(x: Images, severity: int, rng: np.random.Generator) -> Images:
    """Dark drops: smoothed noise above a threshold, smoothed again, a quarter as bright as white."""
    mean, spread, first, threshold, second = (
        (0.65, 0.3, 4.0, 0.69, 0.6),
        (0.65, 0.3, 3.0, 0.68, 0.6),
        (0.65, 0.3, 2.0, 0.68, 0.5),
        (0.65, 0.3, 1.0, 0.65, 1.5),
        (0.67, 0.4, 1.0, 0.65, 1.5),
    )[severity - 1]
    shape = (len(x), 1, *x.shape[2:])
    wet = smooth(rng.normal(mean, spread, shape), first) > threshold
    mud = smooth(wet.astype(np.float64), second)
    mud[mud < 0.8] = 0
    return np.clip(x * (1 - mud) + 63 / 255 * mud, 0, 1)


def dotted_line(x: Images, severity: int, rng: np.random.Generator) -> Images:
    """A straight line from the left edge to the right; of every four columns two are left out."""
    n, _, height, width = x.shape
    ends = rng.integers(0, height - 1, size=(2, n))
    line = _line(height, width, (np.zeros(n), ends[0]), (np.full(n, width - 1), ends[1]))
    line[..., np.arange(width) % 4 < 2] = 0
    return np.clip(x + line[:, None], 0, 1)


def zigzag(x: Images, severity: int, rng: np.random.Generator) -> Images:
    """A line that goes up and down by two pixels around a slightly tilted straight one."""
    n, _, height, width = x.shape
    first, last = 2.0 * width / 28, 25.0 * width / 28
    start = rng.integers(0, height - 1, n).astype(np.float64)
    tilt = np.arctan(rng.integers(-5, 5, n) / (last - first))
    length = (last - first) / np.cos(tilt)
    drawn = x
    along, off = np.zeros(n), np.zeros(n)
    # Corners lie at 2, 6, 10, ... along the straight line, as far as it goes, and then at its end.
    for corner in range(int(length.max() // 4) + 2):
        there = np.minimum(4.0 * corner + 2, length)
        beside = np.where(4.0 * corner + 2 < length, 2.0 * (-1) ** corner, 0.0)
        points = []
        for a, b in ((along, off), (there, beside)):
            points.append(
                (first + a * np.cos(tilt) - b * np.sin(tilt), start + a * np.sin(tilt) + b * np.cos(tilt))
            )
        line = _line(height, width, points[0], points[1])
        line[there <= along] = 0
        drawn = np.clip(drawn + line[:, None], 0, 1)
        along, off = there, beside
    return drawn


def _line(
    height: int,
    width: int,
    start: tuple[NDArray[np.float64], NDArray[np.float64]],
    end: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """``(n, height, width)`` lines between (column, row) points, of ``1 + log(1 - d / 2.3)`` at vertical distance d."""
    columns, rows = np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)
    run = np.where(end[0] == start[0], 1.0, end[0] - start[0])
    slope = (end[1] - start[1]) / run
    at = slope[:, None] * (columns - start[0][:, None]) + start[1][:, None]
    distance = np.minimum(np.abs(rows[None, :, None] - at[:, None, :]), _FADE - 1e-10)
    line = np.clip(1 + np.log(1 - distance / _FADE), 0, 1)
    inside = (columns >= np.floor(start[0])[:, None]) & (columns < np.ceil(end[0])[:, None])
    return np.asarray(line * inside[:, None, :])


def canny_edges(x: Images, severity: int, rng: np.random.Generator) -> Images:
    """White edges on black (Canny 1986): sigma 1, thresholds 0.1 and 0.2 on the Sobel gradient of the mean channel."""
    grey = x.mean(axis=1)
    weight = ndimage.gaussian_filter(np.ones(grey.shape[1:]), 1.0, mode="constant")
    smoothed = ndimage.gaussian_filter(grey, (0, 1.0, 1.0), mode="constant") / weight
    down, across = _sobel(smoothed, 1), _sobel(smoothed, 2)
    size = np.hypot(down, across)
    ridge = _largest_along(size, down, across)
    ridge[:, [0, -1]] = False
    ridge[:, :, [0, -1]] = False
    weak, strong = ridge & (size >= 0.1), ridge & (size >= 0.2)
    neighbours = np.zeros((3, 3, 3), dtype=bool)
    neighbours[1] = True  # of the same image
    edges = ndimage.binary_propagation(strong, structure=neighbours, mask=weak)
    return np.repeat(edges[:, None].astype(np.float64), x.shape[1], axis=1)


def _sobel(images: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """The Sobel derivative along rows (1) or columns (2), never across images."""
    derived = ndimage.correlate1d(images, [-1.0, 0.0, 1.0], axis=axis, mode="reflect")
    return np.asarray(ndimage.correlate1d(derived, [1.0, 2.0, 1.0], axis=3 - axis, mode="reflect"))


def _largest_along(
    size: NDArray[np.float64], down: NDArray[np.float64], across: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Where the gradient is no smaller than both neighbours along its direction, which are interpolated."""
    padded = np.pad(size, ((0, 0), (1, 1), (1, 1)))
    height, width = size.shape[1:]

    def at(row: int, column: int) -> NDArray[np.float64]:
        return padded[:, 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    steep = np.abs(down) > np.abs(across)
    longer = np.where(steep, np.abs(down), np.abs(across))
    share = np.where(steep, np.abs(across), np.abs(down)) / np.where(longer > 0, longer, 1)
    same = down * across >= 0
    keeps = np.ones(size.shape, dtype=bool)
    for sign in (1, -1):
        straight = np.where(steep, at(sign, 0), at(0, sign))
        oblique = np.where(
            steep,
            np.where(same, at(sign, sign), at(sign, -sign)),
            np.where(same, at(sign, sign), at(-sign, sign)),
        )
        keeps &= size >= share * oblique + (1 - share) * straight
    return keeps & (size > 0)
