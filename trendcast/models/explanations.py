"""What models share to take a forecast apart into components, in units of the measure.

Shapes: N series, H leads, C components, G groups of inputs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    Array = npt.NDArray[np.float64]


def in_units(shares: Array, base: Array) -> Array:
    """Turn parts of a logarithm into parts of a difference, and leave no residual (LMDI-I: Ang, Energy Policy 2005).

    Parameters
    ----------
    shares : array [..., C]
        They add up to the logarithm of the mean over the base.
    base : array [...]
        In units of the measure.

    Returns
    -------
    array [..., C]
        They add up to the mean less the base, in units of the measure.
    """
    total = shares.sum(axis=-1)
    near = np.abs(total) < 1e-12
    mean = base * np.where(near, 1.0, np.expm1(total) / np.where(near, 1.0, total))
    return np.asarray(shares * mean[..., None])


def shapley(values: Array) -> Array:
    """Return what each of G groups adds on average over all orders they may come in, [G, ...] (Shapley 1953).

    Parameters
    ----------
    values : array [2 ** G, ...]
        What each set of groups is worth; bit g of a position says whether the set has group g.
    """
    n = round(math.log2(len(values)))
    sets = np.arange(len(values))
    size = ((sets[:, None] >> np.arange(n)) & 1).sum(axis=1)
    parts = np.zeros((n, *values.shape[1:]))
    for g in range(n):
        without = sets[(sets >> g) & 1 == 0]
        weight = [1 / (n * math.comb(n - 1, int(k))) for k in size[without]]
        parts[g] = np.tensordot(weight, values[without | 1 << g] - values[without], 1)
    return parts


def positions(among: pa.Array, series_id: npt.NDArray[np.str_]) -> npt.NDArray[np.int64]:
    """Return the positions of the series that are among some, ascending."""
    return np.flatnonzero(pc.is_in(pa.array(series_id), among).to_numpy(zero_copy_only=False))


def explanation_table(
    series_id: npt.NDArray[np.str_],
    cutoff: int,
    dates: dict[int, dt.date],
    names: Sequence[str],
    contributions: Array,
) -> pa.Table:
    """Return contributions as one row per series, lead and component.

    Parameters
    ----------
    series_id
        The series, [N].
    cutoff
        Period index of the last period known.
    dates
        First day of each period, by period index.
    names
        The components, [C]. The first has a row for every forecast, the others where they are not 0.
    contributions
        In units of the measure, [N, H, C].
    """
    there = contributions != 0
    there[..., 0] = True
    series, ahead, component = np.nonzero(there)
    targets = pa.array([dates[cutoff + h + 1] for h in range(contributions.shape[1])])
    return pa.table(
        {
            "series_id": pa.array(series_id).take(pa.array(series)),
            "cutoff": pa.repeat(pa.scalar(dates[cutoff]), len(series)),
            "target_date": targets.take(pa.array(ahead)),
            "lead": pa.array((ahead + 1).astype(np.int32)),
            "component": pa.array(names).take(pa.array(component)),
            "contribution": pa.array(contributions[there]),
        }
    )
