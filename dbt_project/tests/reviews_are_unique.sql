-- A reviewed key has one row per period. Not in the YAML, because the key depends on vars.
{%- set key = trendcast.source_key('review_columns') %}
select
    {{ trendcast.key_columns(key, 'reviews') }}
    reviews.t,
    count(*) as copies
from {{ ref('int_reviews') }} as reviews
{{ trendcast.group_by(key | length + 1) }}
having count(*) > 1
