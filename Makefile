# `make demo` runs the main job on the demo shop; `make test` passes every check. Both set up what they need.
PYTHON ?= python3.11
VENV := .venv
comma := ,
BIN := $(VENV)/bin
# What is installed beside the package; EXTRAS=dev,spark has Spark, too, which is half a gigabyte.
EXTRAS ?= dev
STAMP := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))

.PHONY: demo test pytest test-slow test-spark test-whole lint dbt-test check-integrations docs lock sbom clean help

help:
	@echo "make demo       install and run the main job on the demo shop (about 5 minutes the first time)"
	@echo "make test       install and pass every fast check: ruff, mypy, sqlfluff, dbt build, pytest"
	@echo "make test-slow  the slow tests: whole runs, crashes, repeated runs"
	@echo "make test-spark the tests on Spark: Java 17, half a gigabyte of packages, a quarter of an hour"
	@echo "make test-whole what CI has no time for: the whole demo on every engine, long pages of the docs, huge tables; an hour"
	@echo "make check-integrations  older DuckDB clients, MetricFlow, Superset, Airflow, Dagster; half an hour, 5 GB"
	@echo "make docs       the documentation site in site/, the page of dbt docs among it"
	@echo "make lock       requirements.lock anew: the versions of constraints.txt that trendcast runs with, hashed"
	@echo "make sbom       dist/trendcast.cdx.json: what a release is made of (CycloneDX), with licences"
	@echo "make clean      remove the environment, the warehouse and what dbt wrote"

# uv installs in a quarter of pip's time and compiles bytecode, without which TensorFlow takes 20 s to import.
# Where uv cannot reach the index (a proxy with certificates of its own), pip does the same.
$(STAMP): pyproject.toml constraints.txt
	@echo "Installing trendcast into $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@UV_SYSTEM_CERTS=true $(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -c constraints.txt -e ".[$(EXTRAS)]" \
		|| $(BIN)/python -m pip install --quiet --compile -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/trendcast demo

lint: $(STAMP)
	@echo "ruff, mypy, sqlfluff ..."
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@TRENDCAST_DUCKDB_PATH=$(VENV)/lint.duckdb $(BIN)/sqlfluff lint --processes 2 --disable-progress-bar dbt_project/models dbt_project/tests

# The project alone, on an empty warehouse, as an analytics engineer runs it.
dbt-test: $(STAMP)
	@echo "dbt build on an empty warehouse ..."
	@rm -f $(VENV)/test.duckdb
	@TRENDCAST_DUCKDB_PATH=$(VENV)/test.duckdb DBT_TARGET_PATH=$(abspath $(VENV))/test_target \
		$(BIN)/dbt --quiet build --project-dir dbt_project --profiles-dir profiles
	@rm -f $(VENV)/test.duckdb

# A process a core, for memory's sake four at most. A file goes to one process whole; a shop that several files look at is made by the first that needs it.
PYTEST := $(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The first two side by side, for mypy and dbt take one core each.
test: $(STAMP)
	@$(MAKE) --no-print-directory --jobs 2 lint dbt-test
	@$(MAKE) --no-print-directory pytest

# CI runs all but `whole` in one session, so that what several files look at is made once.
TESTS ?= not slow
pytest: $(STAMP)
	@$(PYTEST) -m "$(TESTS)"

test-slow:
	@$(MAKE) --no-print-directory TESTS="slow and not whole" pytest

# Where Spark or Java is missing they fail; among the other tests they are skipped and say so.
test-spark:
	@TRENDCAST_REQUIRE_SPARK=1 $(MAKE) --no-print-directory EXTRAS=dev,spark TESTS="spark and not whole" pytest

test-whole:
	@TRENDCAST_REQUIRE_POSTGRES=1 TRENDCAST_REQUIRE_SPARK=1 $(MAKE) --no-print-directory EXTRAS=dev,spark TESTS=whole pytest

# Each tool in an environment of its own; what is installed in INTEGRATIONS stays for the next time.
INTEGRATIONS ?= build/integrations
check-integrations: $(STAMP)
	@$(BIN)/python scripts/check_integrations.py $(INTEGRATIONS)

# The site opens from the folder. dbt's page needs no warehouse with data in it, only one with the tables.
docs: export TRENDCAST_DUCKDB_PATH = $(VENV)/docs.duckdb
docs: export DBT_TARGET_PATH = $(abspath $(VENV))/docs_target
docs: $(STAMP)
	@NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --quiet --strict
	@rm -f $(TRENDCAST_DUCKDB_PATH)
	@$(BIN)/dbt --quiet run --empty --project-dir dbt_project --profiles-dir profiles
	@$(BIN)/dbt --quiet docs generate --static --project-dir dbt_project --profiles-dir profiles
	@mkdir -p site/dbt && cp $(DBT_TARGET_PATH)/static_index.html site/dbt/index.html
	@rm -f $(TRENDCAST_DUCKDB_PATH)
	@echo "Wrote site/index.html and site/dbt/index.html"

lock: $(STAMP)
	@UV_SYSTEM_CERTS=true $(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --no-annotate \
		--python-version 3.11 --python-platform x86_64-manylinux_2_28 -c constraints.txt pyproject.toml -o requirements.lock

# Of an environment with nothing but the release in it.
sbom: export UV_SYSTEM_CERTS = true
sbom: $(STAMP)
	@rm -rf build/sbom && $(BIN)/uv venv --quiet --python $(BIN)/python build/sbom
	@$(BIN)/uv pip install --quiet --python build/sbom/bin/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python build/sbom/bin/python --no-deps .
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e ".[release]"
	@mkdir -p dist
	@$(BIN)/cyclonedx-py environment build/sbom --pyproject pyproject.toml --output-format JSON --output-reproducible \
		--output-file dist/trendcast.cdx.json
	@rm -rf build/sbom
	@echo "Wrote dist/trendcast.cdx.json"

clean:
	rm -rf $(VENV) trendcast.duckdb trendcast.duckdb.wal trendcast_artifacts trendcast_published trendcast_report.html site dbt_project/target dbt_project/logs logs
