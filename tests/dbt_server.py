"""The server of `trendcast.dbt_server` for tests: it has parsed the project, and keeps what dbt's own tests keep.

Each test's shop has vars of its own, so dbt parses the project anew for it; most of that is reading its macros.
"""

import tempfile

from dbt.cli.main import dbtRunner
from dbt_common.tests import enable_test_caching

from tests.conftest import REPO
from trendcast.dbt_server import main

enable_test_caching()
with tempfile.TemporaryDirectory() as folder:
    project = ["--project-dir", str(REPO / "dbt_project"), "--profiles-dir", str(REPO / "profiles")]
    how = [
        "--no-static-parser",
        "--no-partial-parse",
        "--target-path",
        folder,
        "--log-path",
        folder,
    ]
    dbtRunner().invoke(["--quiet", "parse", *project, *how])
main()
