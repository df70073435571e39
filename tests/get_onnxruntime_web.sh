#!/usr/bin/env bash
# Puts onnxruntime-web into a virtual environment, where the tests look for it.
# Usage: get_onnxruntime_web.sh VENV
set -euo pipefail
version=$(sed -n "s/^VERSION = '\(.*\)'/\1/p" "$(dirname "$0")/../skinseg_jax/exporting/web_runtime.py")
mkdir -p "$1/onnxruntime-web"
npm pack --silent --pack-destination "$1" "onnxruntime-web@$version" > /dev/null
tar -xzf "$1/onnxruntime-web-$version.tgz" -C "$1/onnxruntime-web"
rm "$1/onnxruntime-web-$version.tgz"
