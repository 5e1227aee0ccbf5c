"""The demo shop on Spark, row for row; apart from the other tests on Spark, for its cluster is its own and takes minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Shop
from tests.engines import DEMO, done, require_same_demo
from tests.spark import SparkShop, running

pytestmark = [pytest.mark.spark, pytest.mark.slow]


def test_the_demo_is_duckdbs_row_for_row(tmp_path: Path) -> None:
    with running(tmp_path / "cluster") as cluster:
        duck = Shop(tmp_path / "duckdb", DEMO)
        spark = SparkShop(tmp_path / "spark", DEMO, cluster=cluster)
        for shop in (duck, spark):
            shop.folder.mkdir()
            done(shop, "demo")
            done(shop, "customers")
        require_same_demo(duck, spark)
