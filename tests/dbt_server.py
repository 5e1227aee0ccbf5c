"""The server of `trendcast.dbt_server` for tests: it keeps what dbt's own tests keep.

Each test's shop has vars of its own, so dbt parses the project anew for it; most of that is reading its macros.
"""

from dbt_common.tests import enable_test_caching

from trendcast.dbt_server import main

enable_test_caching()
main()
