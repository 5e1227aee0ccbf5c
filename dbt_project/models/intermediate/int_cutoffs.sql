-- One row per cutoff: fold 0 is the one to forecast from, folds 1.. are the backtest's, each a step earlier.
{%- set settings = trendcast.settings() %}
with extent as (

    select
        min(order_date) as first_date,
        {% if var('cutoff') %}
        cast('{{ var("cutoff") }}' as date) as last_date
        {% else %}
        -- Today is not over, and an order dated ahead of it must not stretch the panel.
        least(max(order_date), {{ trendcast.yesterday() }}) as last_date
        {% endif %}
    from {{ ref('int_order_lines') }}

),

-- The period of the last date counts only if it is over.
complete as (

    select
        first_date,
        {{ trendcast.period_index('first_date') }} as first_t,
        case
            when {{ trendcast.period_end(trendcast.period_start('last_date')) }} <= last_date
                then {{ trendcast.period_start('last_date') }}
            else cast({{ trendcast.date_after(settings.grain, -1, trendcast.period_start('last_date')) }} as date)
        end as cutoff
    from extent

),

folds as (

    {% for fold in range(settings.backtest_folds + 1) %}
    select
        {{ fold }} as fold,
        first_date,
        first_t,
        cast({{ trendcast.date_after(settings.grain, -fold * settings.backtest_step, 'cutoff') }} as date) as cutoff
    from complete
    {{ 'union all' if not loop.last }}
    {% endfor %}

)

select
    fold,
    first_date,
    cutoff,
    first_t,
    {{ trendcast.period_index('cutoff') }} as cutoff_t
from folds
where {{ trendcast.period_index('cutoff') }} >= first_t
