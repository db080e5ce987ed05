#!/bin/sh
# Spark, which only the test that reads finished scores with it needs, in an environment of its own.
# It runs on Java 17 or later (Debian: default-jre-headless).
set -eu
bin=${1:-.venv/bin}
cd "$(dirname "$0")/.."
command -v java > /dev/null || { echo "Spark needs Java 17 or later: apt-get install default-jre-headless" >&2; exit 1; }
"$bin/uv" venv --quiet --clear --python "$bin/python" .tools/spark
"$bin/uv" pip install --quiet --system-certs --python .tools/spark/bin/python "pyspark==4.3.0"
