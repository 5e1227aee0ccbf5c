{#- Forecasts by analogy, for series with little or no history: see docs/new-products.md. -#}

{#- The columns of the series key that describe the product, and those that say where it is sold. -#}
{% macro product_key() %}
    {{ return(var('series_key') | select('in', ['product_id'] + trendcast.product_attributes()) | list) }}
{% endmacro %}

{% macro place_key() %}
    {{ return(var('series_key') | reject('in', trendcast.product_key()) | list) }}
{% endmacro %}

{#- The columns that name and describe a series, as ftr_static has them, without its id. -#}
{% macro series_columns() %}
    {%- set columns = var('series_key') | list -%}
    {%- for column in (var('static_attributes') or []) if trendcast.has_source('products') and column not in columns -%}
        {%- do columns.append(column) -%}
    {%- endfor -%}
    {{ return(columns) }}
{% endmacro %}

{#- Stops where a plan of launches cannot name a series. -#}
{% macro check_launches() %}
    {%- if trendcast.has_source('launches') -%}
        {%- for column in trendcast.place_key()
            if column != 'location_id' or not var('launch_columns').get('location_id') -%}
            {{ exceptions.raise_compiler_error(
                "var 'launch_columns' must map every column of series_key that is none of the product's, and can map "
                ~ "location_id; series_key has: " ~ column ~ ". Map it, or set launches_table to null") }}
        {%- endfor -%}
    {%- endif -%}
{% endmacro %}

{#- Lists of columns whose equality makes two series alike, the nearest first: the place and each list of the var
    `neighbour_groups`, by default each static attribute by itself in turn; then the place alone, and at last nothing. -#}
{% macro likenesses() %}
    {%- set known, places = trendcast.series_columns(), trendcast.place_key() -%}
    {%- set chosen = var('neighbour_groups') -%}
    {%- if chosen is none -%}
        {%- set chosen = [] -%}
        {%- for column in known if column in (var('static_attributes') or []) -%}
            {%- do chosen.append([column]) -%}
        {%- endfor -%}
    {%- endif -%}
    {%- set found = [] -%}
    {%- for columns in chosen -%}
        {%- for column in columns if column not in known -%}
            {{ exceptions.raise_compiler_error(
                "var 'neighbour_groups' must be a list of lists of " ~ known | join(', ') ~ "; came: " ~ column) }}
        {%- endfor -%}
        {%- do found.append(places + (columns | reject('in', places) | list)) -%}
    {%- endfor -%}
    {%- for columns in ([places] if places else []) + [[]] -%}
        {%- do found.append(columns) -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}

{#- The values that make two series alike, as one text for each row's likeness: null where one of them is. In a statement
    where the columns have one meaning. -#}
{% macro likeness_key(likenesses) -%}
    case likeness
        {%- for columns in likenesses %}
        when {{ loop.index0 }} then {{ trendcast.series_id(columns) if columns else "''" }}
        {%- endfor %}
    end
{%- endmacro %}

{#- The columns of int_launches with their types, for a shop without a plan. -#}
{% macro launch_columns() %}
    {%- set types = {'series_id': dbt.type_string()} -%}
    {%- for column in trendcast.series_columns() -%}
        {%- do types.update({adapter.quote(column): dbt.type_string()}) -%}
    {%- endfor -%}
    {%- do types.update({
        'products': 'bigint', 'launch_date': 'date', 'planned_on': 'date', 'launch_t': 'integer',
        'list_price': trendcast.type_double(),
    }) -%}
    {{ return(types) }}
{% endmacro %}

{#- What can be ordered: the series that are forecast in units, and planned launches, for these are stocked before they are
    sold. With the key, the id and what a unit sold for, or is planned to. -#}
{% macro orderable_series() %}
    select
        {{ trendcast.key_columns(var('series_key'), 'sold') }}
        sold.series_id,
        sold.total_revenue / nullif(sold.total_quantity, 0) as unit_price
    from {{ ref('trendcast', 'int_series') }} as sold
    where {{ trendcast.is_in_units('sold') }}
    {% if trendcast.has_source('launches') and trendcast.measures()[0] != 'average_price' %}
    union all
    select
        {{ trendcast.key_columns(var('series_key'), 'launches') }}
        launches.series_id,
        launches.list_price as unit_price
    from {{ ref('trendcast', 'int_launches') }} as launches
    left join {{ ref('trendcast', 'int_series') }} as sold
        on launches.series_id = sold.series_id
    where sold.series_id is null
    {% endif %}
{% endmacro %}
