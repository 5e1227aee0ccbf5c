-- One row per product (and location, where terms differ by it): how it is bought. A term nobody gave is null.
{% if trendcast.has_source('supply') %}
select
    {% for column in trendcast.supply_amounts() %}
    {{ trendcast.safe_mapped('supply_columns', column, trendcast.type_double()) }} as {{ column }},
    {% endfor %}
    {{ trendcast.mapped('supply_columns', 'product_id', dbt.type_string()) }} as product_id,
    {{ trendcast.mapped('supply_columns', 'location_id', dbt.type_string()) }} as location_id,
    {{ trendcast.mapped('supply_columns', 'supplier', dbt.type_string()) }} as supplier
from {{ source('shop', 'supply') }}
{% else %}
{%- set columns = dict.fromkeys(trendcast.supply_amounts(), trendcast.type_double()) -%}
{%- do columns.update(dict.fromkeys(['product_id', 'location_id', 'supplier'], dbt.type_string())) %}
{{ trendcast.no_rows(columns) }}
{% endif %}
