#!/usr/bin/env bash
# Pins every dependency by version and hash, for all platforms and Pythons we support; run by `make lock`.
set -euo pipefail
cd "$(dirname "$0")/.."
compile() { .venv/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --emit-build-options -q "$@"; }
# The build option of run.in comes once for each input file; one line is enough.
once() { sed -i.bak '1{h;d;};2{H;x;s/^\(.*\)\n\1$/\1/;}' "$1" && rm "$1.bak"; }
compile requirements/build.in -o requirements/build.lock
compile pyproject.toml requirements/run.in -c requirements/build.lock --extra local -o requirements/run.lock
compile pyproject.toml requirements/run.in requirements/build.in --extra local --group dev -c requirements/run.lock -o requirements/dev.lock
once requirements/dev.lock
compile requirements/photos.in --no-deps -o requirements/photos.lock
for service in scheduler executor gateway; do
  compile pyproject.toml requirements/run.in requirements/build.in -c requirements/run.lock --extra "$service" -o "requirements/$service.lock"
  once "requirements/$service.lock"
done
