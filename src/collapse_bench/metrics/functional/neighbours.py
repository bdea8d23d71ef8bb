"""Distances and nearest neighbours in blocks of rows, so that no n x n matrix is ever kept.

Nearly all pairs are decided by one float32 matrix product of centred features, which bounds the squared distance from
below and above. The few pairs whose bounds do not decide are looked at again in float64, as differences of the features
that were given. So the results are those of float64, up to ties and copies, at the speed of float32.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

ROUNDING = 1 + 1e-9
"""Squared radii grow by this factor, so that float64 rounding cannot break a tie: inside means ``<=``.

A sum of four million squares has a smaller error.
"""

_BLOCK = 2**21
"""Numbers in a block of bounds: 8 MB in float32."""
_SPARE = 5
"""Neighbours kept beyond the k-th, so that few rows must be searched again in float64."""
_SYMMETRIC_FROM = 256
"""From this number of features on, half of a matrix product costs more than to search a block along both axes."""
_FEW = 1 / 512
"""Share of pairs up to which single float64 differences are faster than a float64 matrix product."""
_TERMS = 512
"""Terms that a matrix product adds at once, about: fewer have smaller errors."""
_LARGEST = 2.0**100
"""Squared norms above this one might overflow in float32."""


def squared_distances(
    queries: Float[Tensor, "q d"], points: Float[Tensor, "p d"], num_rows: int = 256
) -> Iterator[tuple[slice, Tensor]]:
    """Squared Euclidean distances from queries to points, a block of queries at a time.

    Args:
        queries: one row per query, float64, near the origin.
        points: one row per point, likewise.
        num_rows: queries per block; bounds the memory.

    Yields:
        The queries of the block and their distances, queries x points.
    """
    norms = points.square().sum(1)
    for start in range(0, len(queries), num_rows):
        block = slice(start, start + num_rows)
        squared = torch.addmm(norms, queries[block], points.T, alpha=-2)
        yield block, squared.add_(queries[block].square().sum(1, keepdim=True)).clamp_(min=0)


def distinct(rows: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "u d"], Int64[Tensor, " n"]]:
    """The distinct rows, and for every row which of them it is.

    Args:
        rows: any finite values.
    """
    if len(rows[:, :64].unique(dim=0)) == len(rows):
        return rows, torch.arange(len(rows), device=rows.device)
    # Comparing whole rows is slow, so 128 bits of each are compared; adding 0 makes -0 and 0 the same bytes.
    chunks = (chunk.add(0.0).contiguous().cpu().numpy() for chunk in rows.split(1024))
    digests = (hashlib.blake2b(row.data, digest_size=16).digest() for chunk in chunks for row in chunk)
    seen: dict[bytes, int] = {}
    equal = [seen.setdefault(digest, index) for index, digest in enumerate(digests)]
    first, owner = torch.tensor(equal, device=rows.device).unique(return_inverse=True)
    return rows[first], owner


def nearest_distances(
    queries: Float[Tensor, "q d"], points: Float[Tensor, "p d"], num_neighbours: int = 1
) -> Float[Tensor, " q"]:
    """Distance from every query to its k-th nearest point, in the features' unit, float64.

    Args:
        queries: one row per query, any finite values.
        points: one row per point, at least k of them.
        num_neighbours: k, at least 1.
    """
    prepared = Points(points)
    nearest = _Nearest.none(len(queries), min(num_neighbours + _SPARE, len(points)), points.device)
    for block in blocks(len(queries), len(points)):
        bounds = prepared.bounds(queries[block])
        nearest.add(block, bounds.lower, first=0, norms=bounds.norms)
    return _kth_squared(queries, prepared, nearest, num_neighbours, is_self=False).sqrt()


def squared_radii(points: Float[Tensor, "n d"], num_neighbours: int) -> Float[Tensor, " n"]:
    """Squared distance from every point to its k-th nearest among the other points, float64.

    A point leaves itself out by its index. Where there are fewer than k other points the farthest is taken (0 for a
    single one).

    Args:
        points: distinct rows: one that was repeated k times would have radius 0.
        num_neighbours: k, at least 1.
    """
    num_others = len(points) - 1
    k = min(num_neighbours, num_others)
    if k == 0:
        return torch.zeros(1, dtype=torch.float64, device=points.device)
    prepared = Points(points)
    nearest = _Nearest.none(len(points), min(k + _SPARE, num_others), points.device)
    is_symmetric = points.shape[1] >= _SYMMETRIC_FROM
    for block in blocks(len(points), len(points), 512 if is_symmetric else None):
        first = block.start if is_symmetric else 0
        lower = prepared.bounds_among(block, first)
        own = torch.arange(len(lower), device=points.device)
        lower[own, own + block.start - first] = torch.inf
        nearest.add(block, lower, first, prepared.norms[block])
        if is_symmetric and block.stop < len(points):
            # What later points are to this block, the block is to them.
            later = slice(block.stop, len(points))
            nearest.add(later, lower[:, len(own) :].T.contiguous(), block.start, prepared.norms[later])
    return _kth_squared(points, prepared, nearest, k, is_self=True)


def blocks(num_rows: int, num_columns: int, size: int | None = None) -> Iterator[slice]:
    """Slices of rows that make blocks of bounded memory.

    Args:
        num_rows: to be cut.
        num_columns: length of a row.
        size: rows of a block, where it is not to follow from the memory.
    """
    size = size or max(1, _BLOCK // max(1, num_columns))
    for start in range(0, num_rows, size):
        yield slice(start, min(start + size, num_rows))


class Points:
    """Points that any number of queries are compared with.

    Bounds come from one matrix product of the features, the squared norms and ones. Whatever the order in which it adds
    them, it misses ``|x|^2 + |y|^2 - 2 x.y`` by at most ``_error`` of the norms (Higham, "Accuracy and Stability of
    Numerical Algorithms", 2002, sec. 3.1). The norms are lowered by that much, so that the product never exceeds the
    squared distance, and misses it by at most the ``slack`` of both rows.

    Args:
        rows: one row per point, any finite values.
    """

    def __init__(self, rows: Float[Tensor, "p d"]) -> None:
        self.rows = rows
        # Any origin near the points does: it keeps inner products from losing digits to a common mean.
        self._origin = torch.stack([block.double().sum(0) for block in rows.split(1024)]).sum(0) / len(rows)
        self.norms = rows.new_empty(len(rows), dtype=torch.float64)
        # Torch can be told to round products to less than float32 (TF32, bfloat16).
        self._dtype = torch.float32 if torch.get_float32_matmul_precision() == "highest" else torch.float64
        self._columns = {self._dtype: self._augmented(rows, self.norms, self._dtype)}
        if self._type_for(self.norms) != self._dtype:
            self._dtype = torch.float64
            self._columns = {self._dtype: self._augmented(rows, self.norms, self._dtype)}

    def bounds(self, queries: Float[Tensor, "q d"], dtype: torch.dtype | None = None) -> "Bounds":
        """Bounds of the squared distances from some queries to all points.

        Args:
            queries: one row per query, any finite values.
            dtype: arithmetic of the product; by default float32, where it has the range.
        """
        norms = self.norms.new_empty(len(queries))
        columns = self._augmented(queries, norms, dtype or self._dtype)
        dtype = dtype or self._type_for(norms)
        if dtype not in self._columns:
            self._columns[dtype] = self._augmented(self.rows, torch.empty_like(self.norms), dtype)
        if dtype != columns.dtype:
            columns = self._augmented(queries, norms, dtype)
        return Bounds(_product(columns, self._columns[dtype]), norms, queries, self)

    def bounds_among(self, block: slice, first: int) -> Tensor:
        """Lower bounds of the squared distances from some of the points to those from ``first`` on.

        Args:
            block: of the points.
            first: leave out the points before this one.
        """
        columns = self._columns[self._dtype]
        return _product(columns[block].clone(), columns[first:])

    def squared(self, queries: Float[Tensor, "q d"], i: Int64[Tensor, " k"], j: Int64[Tensor, " k"]) -> Tensor:
        """Squared distances of pairs (query i, point j) in float64, from the differences of what was given."""
        step = max(1, 2**18 // self.rows.shape[1])
        pairs = zip(i.split(step), j.split(step), strict=True)
        return torch.cat([(queries[a].double() - self.rows[b].double()).square().sum(1) for a, b in pairs])

    def slack(self, norms: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Part of a row with this squared norm in the largest difference of a squared distance and its lower bound."""
        return 2 * _error(norms, self.rows.shape[1], torch.float32)

    def _type_for(self, norms: Tensor) -> torch.dtype:
        return self._dtype if bool(norms.max() < _LARGEST) else torch.float64

    def _augmented(self, rows: Tensor, norms: Tensor, dtype: torch.dtype) -> Tensor:
        """Centred rows, their lowered squared norms and ones; the squared norms are written to ``norms``."""
        n, d = rows.shape
        columns = rows.new_empty(n, d + 2, dtype=dtype)
        for block in blocks(n, d):
            centred = rows[block].double() - self._origin
            columns[block, :d] = centred
            torch.sum(centred.square_(), 1, out=norms[block])
        columns[:, d] = norms - _error(norms, d, dtype)
        columns[:, d + 1] = 1
        return columns


@dataclass(frozen=True, eq=False)
class Bounds:
    """What is known of the squared distances from a block of queries to points.

    Args:
        lower: never above the squared distance, queries x points.
        norms: squared norms of the queries around the origin of the points, float64.
        queries: one row per query, as it was given.
        points: the points.
    """

    lower: Tensor
    norms: Float[Tensor, " q"]
    queries: Float[Tensor, "q d"]
    points: Points

    def within(
        self, squared_radii: Float[Tensor, "#q #p"], wanted: Bool[Tensor, " p"] | None = None
    ) -> tuple[Bool[Tensor, "q h"], Int64[Tensor, " h"]]:
        """Which queries lie within a radius of which points.

        Args:
            squared_radii: one per query (a column), or one per point (a row), float64.
            wanted: points that are looked at; all by default.

        Returns:
            For every query and every point that may have one near, whether it is within; and those points.
        """
        radii = squared_radii * ROUNDING
        # Rounding to the type of the bounds may lower a radius, the next number above does not.
        above = torch.nextafter(radii.to(self.lower.dtype), radii.new_full((), torch.inf, dtype=self.lower.dtype))
        per_point = above.shape == (1, self.lower.shape[1])
        hit = (self.lower.amin(0) - above[0] if per_point else (self.lower - above).amin(0)) <= 0
        points = (hit if wanted is None else hit & wanted).nonzero()[:, 0]
        beyond = self.lower[:, points] - (above[:, points] if per_point else above)
        possible = beyond <= 0
        beyond += self.points.slack(self.norms)[:, None]
        beyond += self.points.slack(self.points.norms[points])
        within = beyond <= 0

        i, j = (possible ^ within).nonzero(as_tuple=True)
        if len(i) <= _FEW * self.lower.numel():
            squared = self.points.squared(self.queries, i, points[j])
        else:
            # So many near ties are ties; the lower bound counts pairs within float64 rounding as inside.
            squared = self.points.bounds(self.queries, dtype=torch.float64).lower[i, points[j]]
        within[i, j] = squared <= radii.expand_as(self.lower)[i, points[j]]
        return within, points


@dataclass(frozen=True, eq=False)
class _Nearest:
    """The points with the smallest lower bounds that were seen so far, ascending, for each query.

    Args:
        lower: bounds, infinite where fewer points were seen, float64.
        index: of the points.
        norms: squared norms of the queries.
    """

    lower: Float[Tensor, "q m"]
    index: Int64[Tensor, "q m"]
    norms: Float[Tensor, " q"]

    @classmethod
    def none(cls, num_queries: int, num_kept: int, device: torch.device) -> "_Nearest":
        lower = torch.full((num_queries, num_kept), torch.inf, dtype=torch.float64, device=device)
        return cls(lower, torch.zeros_like(lower, dtype=torch.int64), torch.zeros_like(lower[:, 0]))

    def add(self, queries: slice, lower: Tensor, first: int, norms: Tensor) -> None:
        """Shows bounds of some queries to the points from ``first`` on."""
        num_kept = self.lower.shape[1]
        values, columns = _smallest(lower, min(num_kept, lower.shape[1]))
        seen = torch.cat([self.lower[queries], values.double()], 1)
        index = torch.cat([self.index[queries], columns + first], 1)
        kept = seen.topk(num_kept, largest=False)
        self.lower[queries], self.index[queries] = kept.values, index.gather(1, kept.indices)
        self.norms[queries] = norms


def _kth_squared(
    queries: Float[Tensor, "q d"], points: Points, nearest: _Nearest, k: int, *, is_self: bool
) -> Float[Tensor, " q"]:
    """Squared distance to the k-th nearest point, from candidates that bounds have chosen."""
    lower = nearest.lower
    upper = lower + points.slack(nearest.norms)[:, None] + points.slack(points.norms)[nearest.index]
    # The k-th distance lies between the k-th lower and the k-th upper bound; who surely lies below or above that range
    # only has to be counted.
    least, most = lower[:, k - 1 : k], upper.kthvalue(k, dim=1, keepdim=True).values
    squared = torch.where(upper < least, -torch.inf, torch.inf).double()
    i, slot = ((upper >= least) & (lower <= most)).nonzero(as_tuple=True)
    squared[i, slot] = points.squared(queries, i, nearest.index[i, slot])
    kth = squared.kthvalue(k, dim=1).values

    # Unless all points are candidates, one that was left out might be nearer than the upper bound.
    if lower.shape[1] == len(points.rows) - is_self:
        return kth
    unsure = (lower[:, -1] <= most[:, 0]).nonzero()[:, 0]
    for block in blocks(len(unsure), len(points.rows)):
        some = unsure[block]
        again = points.bounds(queries[some], dtype=torch.float64).lower
        if is_self:
            again[torch.arange(len(some), device=some.device), some] = torch.inf
        near = again.topk(k, largest=False).indices
        pairs = points.squared(queries, some.repeat_interleave(k), near.flatten())
        kth[some] = pairs.view(-1, k).amax(1)
    return kth


def _smallest(rows: Float[Tensor, "q p"], k: int) -> tuple[Float[Tensor, "q k"], Int64[Tensor, "q k"]]:
    """The k smallest numbers of each row, and where they are."""
    size = math.isqrt(rows.shape[1] // k)
    num_groups = rows.shape[1] // size
    if num_groups < 16 * k:
        return rows.topk(k, largest=False)
    # The k smallest lie in the k groups with the smallest minima, or in what is left over; minima are fast to find.
    whole = num_groups * size
    groups = rows[:, :whole].unflatten(1, (size, num_groups)).amin(1).topk(k, largest=False).indices
    inside = (groups[:, :, None] + torch.arange(0, whole, num_groups, device=rows.device)).flatten(1)
    rest = torch.arange(whole, rows.shape[1], device=rows.device).expand(len(rows), -1)
    candidates = torch.cat([inside, rest], 1)
    found = rows.gather(1, candidates).topk(k, largest=False)
    return found.values, candidates.gather(1, found.indices)


def _product(left: Float[Tensor, "q c"], right: Float[Tensor, "p c"]) -> Float[Tensor, "q p"]:
    """Lower bounds of the squared distances, from the columns of both; those of the left are overwritten."""
    left[:, :-2] *= -2
    left[:, -2:] = left[:, -2:].flip(1)
    lower = left.new_empty(len(left), len(right))
    for tile in blocks(len(right), len(left)):
        # Sums of few terms have small errors, and to add a few sums costs little against the products.
        first_terms, *more_terms = blocks(left.shape[1], 1, _num_terms(left.shape[1]))
        sums = torch.mm(left[:, first_terms], right[tile, first_terms].T, out=lower[:, tile])
        for terms in more_terms:
            sums += left[:, terms] @ right[tile, terms].T
    return lower


def _num_terms(num_columns: int) -> int:
    """Terms that a product adds at once: about ``_TERMS``, in parts of equal size."""
    return math.ceil(num_columns / max(1, round(num_columns / _TERMS)))


def _error(norms: Tensor, num_features: int, dtype: torch.dtype) -> Tensor:
    """What rounding can do to a product of rows with these squared norms; numbers near zero have an absolute error."""
    limits = torch.finfo(dtype)
    num_columns = num_features + 2
    # The terms of a part, the parts, and a few more for the rounding of the columns themselves.
    num_roundings = _num_terms(num_columns) + num_columns // _TERMS + 12
    return num_roundings * (limits.eps * norms + 4 * limits.tiny * num_features)
