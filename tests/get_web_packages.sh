#!/usr/bin/env bash
# Puts onnxruntime-web and axe-core into a virtual environment, where the tests
# look for them. Usage: get_web_packages.sh VENV
set -euo pipefail
get() { # VENV NAME VERSION SHA-256
  local file="$1/$2-$3.tgz"
  npm pack --silent --pack-destination "$1" "$2@$3" > /dev/null
  echo "$4  $file" | sha256sum --check --quiet
  mkdir -p "$1/$2"
  tar -xzf "$file" -C "$1/$2"
  rm "$file"
}
runtime=$(sed -n "s/^VERSION = '\(.*\)'/\1/p" "$(dirname "$0")/../skinseg_jax/exporting/web_runtime.py")
get "$1" axe-core 4.14.1 e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745
get "$1" onnxruntime-web "$runtime" d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71
