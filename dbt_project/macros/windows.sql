{#- Everything a history feature may look at: values of earlier rows, and statistics of the rows up to and
    including the current one. These macros alone write windows, so no frame can reach past its own row. -#}

{#- Appends CTEs to a `with` clause. The last is named `windowed`: the rows of `panel` with

        <column>_lag_<k>             the value k rows before; null where the series has no such row
        <column>_sum_<w>             the sum of the last w rows, of fewer at a series' start
        <column>_min_<w>, _max_<w>   the smallest and the largest of the same rows
        <column>_ewm_<w>             the sum of the same rows weighted with 1, d, d^2, ... from the newest back
        <column>_season_sum_<w>      the sum of the last w rows at this row's position in the season
        <name>                       what `derived`, `sums_to_date` and `last_t` call it

    Means, deviations, shares and trends are plain arithmetic on these: see mean_of and variance_of.

    panel        CTE or relation: one row per series and period, without gaps; has series_no (a whole number per
                 series: windows over text keys take four times as long), t, row_number (1 in a series' first row of
                 all, whether the panel begins with it or not), and the columns named below
    columns      columns to carry along beside those three
    derived      {name: expression}, computed row by row; the rest may name these. Where an expression looks back it is a
                 list of its parts, in which (column, k, otherwise) stands for the value k rows before, `otherwise` where
                 the series has no such row: ['y - ', ('y', 1, 0)]
    lags         {column: [k, ...]}; the column may be one that `sums` makes
    sums         {column: [w, ...]}: doubles, no nulls
    minima       {column: [w, ...]}
    maxima       {column: [w, ...]}
    ewms         {column: [d, [w, ...]]}: d is the weight of a row over that of the next; a second decay needs a second
                 name for the column, through derived
    season_sums  {column: [w, ...]}: doubles, no nulls
    season       rows in a season
    sums_to_date {name: column}: the sum since the first row of the panel. Whole numbers or decimals, none below zero;
                 nulls count as 0
    last_t       {name: condition}: the period of the last row for which it held; null before the first
    wanted       condition on the panel's columns that holds for the rows wanted, which are the last of their series;
                 none: all are. The rows before them are there to look back to. Sums to date and last_t then begin with
                 the first row wanted. The panel is read twice: best as a CTE that is `not materialized`

    There are two forms. The plain one has sums to date and their differences, and frames for the rest. DuckDB's takes a third
    of the time that frames alone do there: a window of 28 rows is two of 14, each of those is two of 7, and so on; every step is one lag and one addition, done while the
    rows stream by. In both, a value hangs on the rows of its own window only, and always in the same way (exact decimals
    in the plain form, a fixed tree of additions in DuckDB's), so its bits depend neither on later rows nor on threads.
    Where few rows are `wanted`, DuckDB's form writes the same trees out over lists of the rows before: to stream
    ninety rows for the sake of one would cost more than to add up ninety numbers. -#}
{% macro windows(panel, columns=[], derived={}, lags={}, sums={}, minima={}, maxima={}, ewms={}, season_sums={},
                 season=none, sums_to_date={}, last_t={}, wanted=none) -%}
    {{ return(adapter.dispatch('windows', 'trendcast')(
        panel, columns, derived, lags, sums, minima, maxima, ewms, season_sums, season, sums_to_date, last_t, wanted)) }}
{%- endmacro %}

{#- The value k rows before (0: the row's own), `otherwise` where the series has no such row. -#}
{% macro before(column, k, otherwise=none) -%}
    {{ return(adapter.dispatch('before', 'trendcast')(column, k, otherwise) if k else column) }}
{%- endmacro %}

{#- SQL of an entry of `derived`, for the row itself. -#}
{% macro derived_of(expression) -%}
    {%- if expression is string -%}
        {{ return(expression) }}
    {%- endif -%}
    {%- set parts = [] -%}
    {%- for part in expression -%}
        {%- do parts.append(part if part is string else trendcast.before(part[0], part[1], part[2])) -%}
    {%- endfor -%}
    {{ return(parts | join) }}
{%- endmacro %}

{#- A trailing aggregate over the `periods` rows that end with the current row; none: since the first row. With `by`, of the
    rows alone that have the same value of it. -#}
{% macro trailing(aggregate, periods=none, by=none) -%}
    {{ aggregate }} over (
            partition by series_no{{ ', ' ~ by if by else '' }} order by t
            rows between {{ periods - 1 if periods else 'unbounded' }} preceding and current row
        )
{%- endmacro %}

{#- ---------------------------------------------------------------- the plain form -#}

{% macro default__windows(panel, columns, derived, lags, sums, minima, maxima, ewms, season_sums, season, sums_to_date,
                          last_t, wanted=none) -%}
{#- Prices and shares have more decimals than amounts. -#}
{%- set exact = trendcast.type_fine() -%}
{%- set summands = [('sum', sums, none), ('season_sum', season_sums, 'mod(t, ' ~ season ~ ')')] -%}
ordered as (

    select
        {%- for column in ['series_no', 't', 'row_number'] + trendcast.panel_columns(columns, derived, lags, sums, minima, maxima, ewms, season_sums) %}
        {{ column }},
        {%- endfor %}
        row_number() over (partition by series_no order by t) as position
    from {{ panel }}

),

derived as (

    select
        {%- for name, expression in derived.items() %}
        {{ trendcast.derived_of(expression) }} as {{ name }},
        {%- endfor %}
        ordered.*
    from ordered

),

-- A sum over a window is the difference of two sums to date, exact because they are decimals; a frame would be added up
-- anew for every row.
to_date as (

    select
        {%- for statistic, by_column, position in summands %}
        {%- for column, lengths in by_column.items() if lengths %}
        {{ trendcast.trailing('sum(cast(' ~ column ~ ' as ' ~ exact ~ '))', by=position) }}
            as {{ column }}_{{ statistic }},
        {%- endfor %}
        {%- endfor %}
        derived.*
    from derived

),

summed as (

    select
        {%- for statistic, by_column, position in summands %}
        {%- for column, lengths in by_column.items() %}
        {%- for w in lengths | unique %}
        {%- set total = column ~ '_' ~ statistic %}
        cast({{ total }} - {{ trendcast.default__before(total, w, 0, by=position) }} as {{ trendcast.type_double() }})
            as {{ total }}_{{ w }},
        {%- endfor %}
        {%- endfor %}
        {%- endfor %}
        {%- for statistic, by_column in [('min', minima), ('max', maxima)] %}
        {%- for column, lengths in by_column.items() %}
        {%- for w in lengths | unique %}
        {{ trendcast.trailing(statistic ~ '(' ~ column ~ ')', w) }} as {{ column }}_{{ statistic }}_{{ w }},
        {%- endfor %}
        {%- endfor %}
        {%- endfor %}
        {%- for column, ewm in ewms.items() %}
        {%- for w in ewm[1] | unique %}
        {{ column }}{% for k in range(1, w) %} + {{ ewm[0] ** k }} * {{ trendcast.before(column, k, 0) }}
        {%- endfor %} as {{ column }}_ewm_{{ w }},
        {%- endfor %}
        {%- endfor %}
        {%- for name, column in sums_to_date.items() %}
        {{ trendcast.trailing('sum(coalesce(' ~ column ~ ', 0))') }} as {{ name }},
        {%- endfor %}
        {%- for name, condition in last_t.items() %}
        {{ trendcast.trailing('max(case when ' ~ condition ~ ' then t end)') }} as {{ name }},
        {%- endfor %}
        to_date.*
    from to_date

),

windowed as (

    select
        {%- for column, periods in lags.items() %}
        {%- for k in periods | unique %}
        {{ trendcast.before(column, k) }} as {{ column }}_lag_{{ k }},
        {%- endfor %}
        {%- endfor %}
        summed.*
    from summed

)
{%- endmacro %}

{% macro default__before(column, k, otherwise, by=none) -%}
    {{ 'coalesce(' if otherwise is not none }}lag({{ column }}, {{ k }}) over (partition by series_no{{ ', ' ~ by if by else '' }} order by t)
    {{- ', ' ~ otherwise ~ ')' if otherwise is not none }}
{%- endmacro %}

{#- ---------------------------------------------------------------- DuckDB's form -#}

{#- `over ()` streams: no sort and no partitions, row after row as they come. So each branch first puts its
    series in order (the partitioned window in `ordered_`); `before` reaches back only inside the series; and every
    row checks that the row before it is its predecessor, or else the query fails. Streaming takes one thread: the
    branches run side by side where preserve_insertion_order is off, and one after the other where it is on.
    The var `window_branches` is best the number of cores. A branch is chosen by a range, because DuckDB expects hardly
    any rows from an equality and would then put the features on the small side of a join. -#}
{% macro duckdb__windows(panel, columns, derived, lags, sums, minima, maxima, ewms, season_sums, season, sums_to_date,
                          last_t, wanted=none) -%}
{%- if wanted -%}
    {{ return(trendcast.windows_of_few(
        panel, columns, derived, lags, sums, minima, maxima, ewms, season_sums, season, sums_to_date, last_t, wanted)) }}
{%- endif -%}
{%- set branches = var('window_branches', 2) -%}
{%- set steps = trendcast.steps(sums, minima, maxima, ewms, season_sums, season) -%}
{%- for branch in range(branches) -%}
ordered_{{ branch }} as (

    select
        {%- for column in ['series_no', 't', 'row_number'] + trendcast.panel_columns(columns, derived, lags, sums, minima, maxima, ewms, season_sums) %}
        {{ column }},
        {%- endfor %}
        row_number() over (partition by series_no order by t) as position
    from {{ panel }}
    where mod(series_no, {{ branches }}) >= {{ branch }} and mod(series_no, {{ branches }}) < {{ branch + 1 }}

),

checked_{{ branch }} as (

    select * replace (
        case
            when position = 1 then t
            when lag(series_no, 1) over () = series_no and lag(t, 1) over () = t - 1 then t
            else error('the panel has gaps, or its rows are out of order')
        end as t
    )
    from ordered_{{ branch }}

),

derived_{{ branch }} as (

    select
        {%- for name, expression in derived.items() %}
        {{ trendcast.derived_of(expression) }} as {{ name }},
        {%- endfor %}
        checked_{{ branch }}.*
    from checked_{{ branch }}

),

-- What has run up since the first row of all, over whatever series came before.
running_{{ branch }} as (

    select
        {%- for name, column in sums_to_date.items() %}
        sum(coalesce({{ column }}, 0)) over (rows between unbounded preceding and current row) as {{ name }}_running,
        {%- endfor %}
        row_number() over () as stream_row,
        *
    from derived_{{ branch }}

),

-- Less what had run up before the series' first row; a last row is one of the series if it is no farther back than that.
to_date_{{ branch }} as (

    select
        {%- for name, column in sums_to_date.items() %}
        {{ name }}_running - max(case when position = 1 then {{ name }}_running - coalesce({{ column }}, 0) end) over (
            rows between unbounded preceding and current row
        ) as {{ name }},
        {%- endfor %}
        {%- for name, condition in last_t.items() %}
        case
            when stream_row - max(case when {{ condition }} then stream_row end) over (
                rows between unbounded preceding and current row
            ) < position
                then t - (stream_row - max(case when {{ condition }} then stream_row end) over (
                    rows between unbounded preceding and current row
                ))
        end as {{ name }},
        {%- endfor %}
        * exclude (stream_row{% for name in sums_to_date %}, {{ name }}_running{% endfor %})
    from running_{{ branch }}

),
{%- for columns_of_step in steps %}

step_{{ loop.index }}_{{ branch }} as (

    select
        *,
        {%- for column in columns_of_step %}
        {{ column }}{{ ',' if not loop.last }}
        {%- endfor %}
    from {{ 'to_date' if loop.first else 'step_' ~ loop.index0 }}_{{ branch }}

),
{%- endfor %}

lagged_{{ branch }} as (

    select
        {%- for column, periods in lags.items() %}
        {%- for k in periods | unique %}
        {{ trendcast.before(column, k) }} as {{ column }}_lag_{{ k }},
        {%- endfor %}
        {%- endfor %}
        *
    from {{ 'step_' ~ steps | length if steps else 'to_date' }}_{{ branch }}

),

{% endfor -%}
windowed as (
    {% for branch in range(branches) %}
    select * from lagged_{{ branch }}
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}

)
{%- endmacro %}

{% macro duckdb__before(column, k, otherwise) -%}
    case when position > {{ k }} then lag({{ column }}, {{ k }}) over ()
    {%- if otherwise is not none %} else {{ otherwise }}{% endif %} end
{%- endmacro %}

{#- The steps from single rows to the longest windows, each a list of select expressions over earlier steps. -#}
{% macro steps(sums, minima, maxima, ewms, season_sums, season) -%}
    {%- set wanted = [] -%}
    {%- for name, by_column, overlap in [('sum', sums, false), ('min', minima, true), ('max', maxima, true)] -%}
        {%- for column, lengths in by_column.items() -%}
            {%- do wanted.append((column, name, lengths, overlap, 1, 1)) -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- for column, lengths in season_sums.items() -%}
        {%- do wanted.append((column, 'season_sum', lengths, false, 1, season)) -%}
    {%- endfor -%}
    {%- for column, ewm in ewms.items() -%}
        {%- do wanted.append((column, 'ewm', ewm[1], false, ewm[0], 1)) -%}
    {%- endfor -%}
    {%- set steps = [] -%}
    {%- for column, statistic, lengths, overlap, decay, stride in wanted -%}
        {%- for w, pieces in trendcast.pieces(lengths, overlap) -%}
            {%- set terms = [] -%}
            {%- for length, shift in pieces -%}
                {%- set piece = column if length == 1 else column ~ '_' ~ statistic ~ '_' ~ length -%}
                {%- set weight = '' if decay == 1 or not shift else decay ** shift ~ ' * ' -%}
                {%- do terms.append(
                    weight ~ (trendcast.before(piece, shift * stride, none if overlap else 0) if shift else piece)) -%}
            {%- endfor -%}
            {%- set expression = ('least(' if statistic == 'min' else 'greatest(') ~ terms | join(', ') ~ ')' if overlap and w > 1
                else terms | join('\n            + ') -%}
            {%- if steps | length < loop.index -%}
                {%- do steps.append([]) -%}
            {%- endif -%}
            {%- do steps[loop.index0].append(expression ~ ' as ' ~ column ~ '_' ~ statistic ~ '_' ~ w) -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(steps) }}
{%- endmacro %}

{#- The same for few rows: each with lists of the rows before it, newest first, over which the trees are written out. A
    derived column of one other is made from that one's list: fewer lists to gather and to sort. -#}
{% macro windows_of_few(panel, columns, derived, lags, sums, minima, maxima, ewms, season_sums, season, sums_to_date, last_t,
                        wanted) -%}
{%- set read = trendcast.panel_columns(columns, derived, lags, sums, minima, maxima, ewms, season_sums) -%}
{%- set looks_back = derived.items() | rejectattr('1', 'string') | map('first') | list -%}
{#- What is made into lists (a second name for a column is none of its own), and how far back. #}
{%- set listed, reach = [], [1] -%}
{%- for by_column, stride in [(lags, 1), (sums, 1), (minima, 1), (maxima, 1), (ewms, 1), (season_sums, season)] -%}
    {%- for column, lengths in by_column.items() if lengths -%}
        {%- set back = (lengths[1] if by_column is sameas ewms else lengths) | max * stride + 1 -%}
        {%- if column in looks_back -%}
            {%- for part in derived[column] if part is not string -%}
                {%- do listed.append(part[0]) -%}
                {%- do reach.append(back + part[1]) -%}
            {%- endfor -%}
        {%- else -%}
            {%- do listed.append(derived[column] if derived.get(column) in read else column) -%}
            {%- do reach.append(back) -%}
        {%- endif -%}
    {%- endfor -%}
{%- endfor -%}
{%- for column in sums_to_date.values() if column in looks_back -%}
    {%- for part in derived[column] if part is not string -%}
        {%- do listed.append(part[0]) -%}
        {%- do reach.append(part[1] + 1) -%}
    {%- endfor -%}
{%- endfor -%}
{%- set listed, reach = listed | unique | list, reach | max -%}
{#- {what is listed: the one column of the panel that it is derived from}; the others are gathered as they are. #}
{%- set derived_from, gathered = {}, [] -%}
{%- for column in listed -%}
    {%- set named = modules.re.findall('[a-z_][a-z_0-9]*', derived.get(column, '')) | select('in', read) | unique | list -%}
    {%- if named | length == 1 -%}
        {%- do derived_from.update({column: named[0]}) -%}
    {%- endif -%}
    {%- do gathered.append(derived_from.get(column, column)) -%}
{%- endfor -%}
{%- set gathered = gathered | unique | list -%}
gathered as (

    select
        {%- for column in gathered %}
        list({{ derived.get(column, column) }}) as {{ column }}_rows,
        {%- endfor %}
        list(t) as periods,
        series_no
    from {{ panel }}
    group by series_no

),

newest_first as (

    select
        {%- for column in gathered %}
        list_select({{ column }}_rows, list_grade_up(periods, 'desc')) as {{ column }}_rows,
        {%- endfor %}
        case
            when list_max(periods) - list_min(periods) + 1 = len(periods) then list_max(periods)
            else error('the panel has gaps, or rows twice')
        end as last_row_t,
        series_no
    from gathered

),

listed as (

    select
        {%- for column, source in derived_from.items() %}
        [{{ derived[column] }} for {{ source }} in {{ source }}_rows] as {{ column }}_rows,
        {%- endfor %}
        *
    from newest_first

),

wanted as (

    select
        {%- for name, expression in derived.items() if name not in looks_back %}
        {{ expression }} as {{ name }},
        {%- endfor %}
        {%- for column in read %}
        {{ column }},
        {%- endfor %}
        series_no,
        t,
        row_number
    from {{ panel }}
    where {{ wanted }}

),

reaching_back as (

    select
        {%- for column in listed %}
        list_resize(
            listed.{{ column }}_rows[last_row_t - t + 1:last_row_t - t + {{ reach }}], {{ reach }}, 0
        ) as {{ column }}_rows,
        {%- endfor %}
        wanted.*
    from wanted
    inner join listed
        on wanted.series_no = listed.series_no

),

looked_back as (

    select
        {%- for name in looks_back %}
        {{ trendcast.rows_before(name, 0, derived) }} as {{ name }},
        {%- endfor %}
        {%- for column, periods in lags.items() %}
        {%- for k in periods | unique %}
        case when row_number > {{ k }} then {{ trendcast.rows_before(column, k, derived) }} end as {{ column }}_lag_{{ k }},
        {%- endfor %}
        {%- endfor %}
        {%- for function, by_column in [('min', minima), ('max', maxima)] %}
        {%- for column, lengths in by_column.items() %}
        {%- for w in lengths | unique %}
        list_{{ function }}({{ column }}_rows[1:{{ trendcast.rows_in(w) }}]) as {{ column }}_{{ function }}_{{ w }},
        {%- endfor %}
        {%- endfor %}
        {%- endfor %}
        {%- for statistic, by_column, stride in [('sum', sums, 1), ('season_sum', season_sums, season), ('ewm', ewms, 1)] %}
        {%- for column, lengths in by_column.items() %}
        {%- set decay, lengths = (lengths[0], lengths[1]) if statistic == 'ewm' else (1, lengths) %}
        {%- set plan = dict(trendcast.pieces(lengths)) %}
        {%- for w in lengths | unique %}
        {{ trendcast.tree(plan, w, 0, column, derived, stride, decay) }}
            as {{ column }}_{{ statistic }}_{{ w }},
        {%- endfor %}
        {%- endfor %}
        {%- endfor %}
        reaching_back.* exclude ({% for column in listed %}{{ column }}_rows{{ ', ' if not loop.last }}{% endfor %})
    from reaching_back

),

windowed as (

    select
        {%- for name, column in sums_to_date.items() %}
        {{ trendcast.trailing('sum(coalesce(' ~ column ~ ', 0))') }} as {{ name }},
        {%- endfor %}
        {%- for name, condition in last_t.items() %}
        {{ trendcast.trailing('max(case when ' ~ condition ~ ' then t end)') }} as {{ name }},
        {%- endfor %}
        *
    from looked_back

)
{%- endmacro %}

{#- A column's value k rows before, from the list of its rows; of one that looks back itself, from those it looks at. -#}
{% macro rows_before(column, k, derived) -%}
    {%- if derived.get(column, '') is string -%}
        {%- set is_second_name = modules.re.fullmatch('[a-z_]+', derived.get(column, '')) -%}
        {{ return((derived[column] if is_second_name else column) ~ '_rows[' ~ (k + 1) ~ ']') }}
    {%- endif -%}
    {%- set parts = [] -%}
    {%- for part in derived[column] -%}
        {%- if part is string -%}
            {%- do parts.append(part) -%}
        {%- else -%}
            {%- set there = part[0] ~ '_rows[' ~ (k + part[1] + 1) ~ ']' -%}
            {%- set otherwise = ' else ' ~ (part[2] if part[2] is not string else part[2] ~ '_rows[' ~ (k + 1) ~ ']') -%}
            {%- do parts.append(
                there if not part[1] else
                'case when row_number > ' ~ (k + part[1]) ~ ' then ' ~ there ~ (otherwise if part[2] is not none) ~ ' end') -%}
        {%- endif -%}
    {%- endfor -%}
    {#- Before the first row there is nothing, as in the lists. #}
    {{ return(
        '(' ~ parts | join ~ ')' if not k else 'case when row_number > ' ~ k ~ ' then ' ~ parts | join ~ ' else 0 end') }}
{%- endmacro %}

{#- The additions that `steps` does one after the other, written out for the window of w rows that ends k rows before. -#}
{% macro tree(plan, w, k, column, derived, stride, decay) -%}
    {%- if w == 1 -%}
        {{ return(trendcast.rows_before(column, k * stride, derived)) }}
    {%- endif -%}
    {%- set terms = [] -%}
    {%- for length, shift in plan[w] -%}
        {%- do terms.append(
            ('' if decay == 1 or not shift else decay ** shift ~ ' * ')
            ~ trendcast.tree(plan, length, k + shift, column, derived, stride, decay)) -%}
    {%- endfor -%}
    {{ return('(' ~ terms | join(' + ') ~ ')') }}
{%- endmacro %}

{#- How windows are put together from shorter ones: a list of (length, [(length of a piece, rows before), ...]);
    length 1 is the row itself. pieces([7, 28]) says 2 = 1+1, 4 = 2+2, 7 = 4+2+1, 14 = 7+7, 28 = 14+14.
    Where pieces may overlap (smallest, largest), two are always enough. -#}
{% macro pieces(lengths, overlap=false) -%}
    {%- set have = [1] -%}
    {%- set plan = [] -%}
    {%- for w in lengths | unique | sort -%}
        {%- if w == 1 -%}
            {%- do plan.append((1, [(1, 0)])) -%}
        {%- endif -%}
        {%- for doubling in range(32) if have[-1] < w -%}
            {%- if have[-1] * 2 <= w -%}
                {%- do plan.append((have[-1] * 2, [(have[-1], 0), (have[-1], have[-1])])) -%}
                {%- do have.append(have[-1] * 2) -%}
            {%- endif -%}
        {%- endfor -%}
        {%- if have[-1] < w -%}
            {%- set parts = [(have[-1], 0)] -%}
            {%- set covered = namespace(rows=have[-1]) -%}
            {%- if overlap -%}
                {%- do parts.append((have[-1], w - have[-1])) -%}
            {%- else -%}
                {%- for length in have | reverse if covered.rows + length <= w -%}
                    {%- for again in range((w - covered.rows) // length) -%}
                        {%- do parts.append((length, covered.rows)) -%}
                        {%- set covered.rows = covered.rows + length -%}
                    {%- endfor -%}
                {%- endfor -%}
            {%- endif -%}
            {%- do plan.append((w, parts)) -%}
            {%- do have.append(w) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(plan) }}
{%- endmacro %}

{#- The columns to read from the panel: all that are named, neither derived nor sums themselves. -#}
{% macro panel_columns(columns, derived, lags, sums, minima, maxima, ewms, season_sums) -%}
    {%- set made = derived.keys() | list -%}
    {%- for column, lengths in sums.items() -%}
        {%- for w in lengths -%}
            {%- do made.append(column ~ '_sum_' ~ w) -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- set names = columns | list -%}
    {%- for named in [lags, sums, minima, maxima, ewms, season_sums] -%}
        {%- for name, lengths in named.items() if lengths and name not in names and name not in made -%}
            {%- do names.append(name) -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(names) }}
{%- endmacro %}

{#- ---------------------------------------------------------------- arithmetic on the columns of `windowed` -#}

{#- Rows in a trailing window: fewer at a series' start. -#}
{% macro rows_in(periods) -%}
    least(row_number, {{ periods }})
{%- endmacro %}

{#- Mean over a trailing window, of a column in `sums`. -#}
{% macro mean_of(column, periods) -%}
    {{ column }}_sum_{{ periods }} / {{ trendcast.rows_in(periods) }}
{%- endmacro %}

{#- Variance over a trailing window; both the column and its square are in `sums`. `sample`: divide by rows less one. -#}
{% macro variance_of(column, square, periods, sample=false) -%}
    greatest(
            {{ square }}_sum_{{ periods }}
            - {{ column }}_sum_{{ periods }} * {{ column }}_sum_{{ periods }} / {{ trendcast.rows_in(periods) }}, 0
        ) / {{ 'nullif(' ~ trendcast.rows_in(periods) ~ ' - 1, 0)' if sample else trendcast.rows_in(periods) }}
{%- endmacro %}

{#- The weight of a row over that of the next in an exponentially weighted mean with the centre of mass of a mean over
    `periods` rows: 1 - 2 / (periods + 1). -#}
{% macro ewm_decay(periods) -%}
    {{ return(1 - 2 / (periods + 1)) }}
{%- endmacro %}

{#- Exponentially weighted mean, of a column in `ewms` with ewm_decay(periods) over `rows` rows: its weighted sum over the
    sum of the weights. After three times the periods a quarter of a percent of the weight is left. -#}
{% macro ewm_of(column, periods, rows) -%}
    {%- set decay = trendcast.ewm_decay(periods) -%}
    {{ column }}_ewm_{{ rows }} / ((1 - power({{ decay }}e0, {{ trendcast.rows_in(rows) }})) / {{ 1 - decay }}e0)
{%- endmacro %}

{#- The value `periods` periods before the current row, for models that have no series_no. -#}
{% macro lag_of(column, periods) -%}
    lag({{ column }}, {{ periods }}) over (partition by series_id order by t)
{%- endmacro %}

{#- An array with the interpolated quantiles of an expression within a group, at several levels at once: the
    engine collects and sorts the group's values once, not once a level. -#}
{% macro quantiles(expression, levels) -%}
    {{ return(adapter.dispatch('quantiles', 'trendcast')(expression, levels | join(', '))) }}
{%- endmacro %}

{% macro default__quantiles(expression, levels) -%}
    percentile_cont(array[{{ levels }}]) within group (order by {{ expression }})
{%- endmacro %}

{% macro duckdb__quantiles(expression, levels) -%}
    quantile_cont({{ expression }}, [{{ levels }}])
{%- endmacro %}

{% macro spark__quantiles(expression, levels) -%}
    percentile({{ expression }}, array({{ levels }}))
{%- endmacro %}

{#- The interpolated quantile of an expression as an aggregate. -#}
{% macro quantile(expression, level) -%}
    {{ return(adapter.dispatch('quantile', 'trendcast')(expression, level)) }}
{%- endmacro %}

{% macro default__quantile(expression, level) -%}
    percentile_cont({{ level }}) within group (order by {{ expression }})
{%- endmacro %}

{% macro duckdb__quantile(expression, level) -%}
    quantile_cont({{ expression }}, {{ level }})
{%- endmacro %}

{#- Of a window too, for which percentile_cont is none. -#}
{% macro postgres__quantile(expression, level) -%}
    {{ trendcast.engine_name('quantile') }}(cast({{ expression }} as double precision), {{ level }})
{%- endmacro %}

{% macro spark__quantile(expression, level) -%}
    percentile({{ expression }}, {{ level }})
{%- endmacro %}

{#- The element of an array at a position that counts from 0. -#}
{% macro element(array, position) -%}
    {{ return(adapter.dispatch('element', 'trendcast')(array, position)) }}
{%- endmacro %}

{% macro default__element(array, position) -%}
    {{ array }}[{{ position + 1 }}]
{%- endmacro %}

{% macro spark__element(array, position) -%}
    {{ array }}[{{ position }}]
{%- endmacro %}
