"""One row per public holiday: a date and a name, from a period before the first sale to a period after the horizon.

From the `holidays` library. DuckDB runs this model in dbt's own process; it is built only where the var
`holiday_country` names a country (see its config in the YAML). For other engines `trendcast` calls public_holidays().
"""

PERIOD_DAYS = {"day": 1, "week": 7, "month": 31}
# Distances to a holiday look two weeks further than the calendar, its lead and lag one period.
MARGIN_DAYS = 62


def model(dbt, session):
    """Return the holidays as a relation."""
    import datetime as dt

    country = dbt.config.meta_get("country")
    subdivision = dbt.config.meta_get("subdivision") or None
    grain = dbt.config.meta_get("grain")
    horizon = int(dbt.config.meta_get("horizon"))
    rows = dbt.ref("int_cutoffs").filter("fold = 0").project("first_date, cutoff").fetchall()
    found = []
    for first_date, cutoff in rows:
        margin = dt.timedelta(days=MARGIN_DAYS)
        first = first_date - margin
        last = cutoff + dt.timedelta(days=PERIOD_DAYS[grain] * (horizon + 1)) + margin
        years = range(first.year, last.year + 1)
        days = public_holidays(country, subdivision, years)
        found = sorted(
            (day, name) for day in days if first <= day <= last for name in days.get_list(day)
        )
    # No Arrow table, for to import what writes one takes longer than all the rest.
    return session.sql(
        "select unnest(cast(? as date[])) as date_day, unnest(cast(? as varchar[])) as name",
        params=[[day for day, _ in found], [name for _, name in found]],
    )


def public_holidays(country, subdivision, years):
    """Ask the library; say what is valid where it does not know the country or its part."""
    try:
        import holidays
    except ImportError as error:
        raise ValueError(
            "var 'holiday_country' must be null where the holidays library is not installed: "
            "pip install 'holidays>=0.109,<1', or set it to null"
        ) from error

    valid = holidays.list_supported_countries()
    if country not in valid:
        codes = ", ".join(sorted(code for code in valid if len(code) == 2))
        raise ValueError(
            f"var 'holiday_country' must be null or an ISO code that the holidays library knows; came: {country!r}. "
            f"Valid: {codes} (in quotes: YAML reads a bare NO as false)"
        )
    if subdivision is not None and subdivision not in valid[country]:
        parts = ", ".join(sorted(valid[country])) or "none"
        raise ValueError(
            f"var 'holiday_subdivision' must be null or a part of {country} that the holidays library knows; "
            f"came: {subdivision!r}. Valid: {parts}"
        )
    # The language is named, or the names would depend on the machine's locale.
    return holidays.country_holidays(country, subdiv=subdivision, years=years, language="en_US")
