#!/usr/bin/env bash
# Tests one wheel of the Python package in several interpreters, each in an environment of its own:
# scripts/test_wheel.sh PYTHON... [-- PYTEST_ARGUMENT...]
set -euo pipefail
cd "$(dirname "$0")/.."

pythons=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    pythons+=("$1")
    shift
done
[ $# -eq 0 ] || shift

wheels=target/wheels-for-test
rm -rf "$wheels"
PATH="$PWD/target/python/bin:$PATH" target/python/bin/maturin build --quiet -m python/Cargo.toml --out "$wheels"

for python in "${pythons[@]}"; do
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    venv=target/python-$version
    echo "CPython $version"
    [ -x "$venv/bin/pip" ] || "$python" -m venv "$venv"
    pip=("$venv/bin/python3" -m pip install --quiet --disable-pip-version-check)
    grep -v '^maturin\|^mypy' python/requirements.txt | "${pip[@]}" -r /dev/stdin
    "${pip[@]}" --force-reinstall --no-deps "$wheels"/*.whl
    # Not from python/, where the sources of the package would be found before the wheel.
    (cd python/tests && "../../$venv/bin/python3" -m pytest -c ../pyproject.toml --rootdir .. . "$@")
done
