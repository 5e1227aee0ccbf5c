"""Charts for notebooks, drawn with Altair; the extra `plot` installs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trendcast.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import altair
    import pandas as pd

# Okabe and Ito's blue and black, which the colour-blind tell apart.
FORECAST, ACTUAL = "#0072b2", "#222222"
# Quantiles at the lower and the upper end of a band, and how strongly it is drawn.
BANDS = (("q025", "q975", 0.18), ("q10", "q90", 0.32))
WIDTH, HEIGHT = 420, 200


def fan(
    names: Sequence[str],
    actuals: pd.DataFrame,
    forecasts: pd.DataFrame,
    measures: Mapping[str, str],
) -> altair.LayerChart | altair.ConcatChart:
    """Draw a chart for each series: what was sold, the forecast's mean, and its 80% and 95% intervals.

    Parameters
    ----------
    names
        The series, in order.
    actuals
        Columns series_id, ds and actual.
    forecasts
        Columns series_id, model, target_date, mean and the quantiles, of one model a series.
    measures
        What is counted of each series, for the axis.

    Raises
    ------
    UsageError
        Altair is not installed.
    """
    try:
        import altair as alt
    except ImportError as error:
        raise UsageError("Charts need Altair: pip install 'trendcast[plot]'.") from error

    date = alt.Axis(format="%d %b %y", labelOverlap=True, title=None)
    tip = [alt.Tooltip("target_date:T", format="%a %d %b %Y", title="date")]
    tip += [
        alt.Tooltip(f"{c}:Q", format=",.1f") for c in ("mean", "q025", "q10", "q50", "q90", "q975")
    ]

    def one(name: Any) -> Any:
        past = actuals[actuals["series_id"] == name]
        coming = forecasts[forecasts["series_id"] == name]
        measure = measures[name].replace("_", " ")
        x = alt.X("target_date:T", axis=date)
        ahead = alt.Chart(coming)
        layers: list[Any] = [
            ahead.mark_area(opacity=opacity, color=FORECAST).encode(
                x=x, y=alt.Y(f"{low}:Q", title=measure), y2=f"{high}:Q"
            )
            for low, high, opacity in BANDS
        ]
        layers.append(
            alt.Chart(past)
            .mark_line(color=ACTUAL, strokeWidth=1)
            .encode(
                x=alt.X("ds:T", axis=date),
                y=alt.Y("actual:Q", title=measure),
                tooltip=[
                    alt.Tooltip("ds:T", format="%a %d %b %Y", title="date"),
                    alt.Tooltip("actual:Q", format=",.1f"),
                ],
            )
        )
        layers.append(
            ahead.mark_line(color=FORECAST, point={"size": 12, "color": FORECAST}).encode(
                x=x, y=alt.Y("mean:Q", title=measure), tooltip=tip
            )
        )
        about = f"{name} ({', '.join(coming['model'].unique())}, 80% and 95% intervals)"
        return alt.layer(*layers).properties(title=about, width=WIDTH, height=HEIGHT)

    charts = [one(name) for name in names]
    return charts[0] if len(charts) == 1 else alt.concat(*charts, columns=2)
