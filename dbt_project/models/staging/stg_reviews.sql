-- One row per review of a product.
{% if trendcast.has_source('reviews') %}
select
    {{ trendcast.mapped('review_columns', 'product_id', dbt.type_string()) }} as product_id,
    {{ trendcast.safe_mapped('review_columns', 'reviewed_at', 'timestamp') }} as reviewed_at,
    {{ trendcast.safe_mapped('review_columns', 'rating', trendcast.type_amount()) }} as rating
from {{ source('shop', 'reviews') }}
{% if var('as_of') %}
where coalesce(
    {{ trendcast.local_date(trendcast.safe_mapped('review_columns', 'reviewed_at', 'timestamp'), var('review_timezone')) }}
    <= cast('{{ var("as_of") }}' as date),
    true
)
{% endif %}
{% else %}
{{ trendcast.no_rows({
    'product_id': dbt.type_string(),
    'reviewed_at': 'timestamp',
    'rating': trendcast.type_amount(),
}) }}
{% endif %}
