#!/bin/sh
# Builds the plugins of sdk/ that aren't Rust's, from what registries have: C++ with the clang of PyPI's
# ziglang, AssemblyScript with npm, Go with Go. A toolchain that isn't there is said, and its module stays.
set -eu
cd "$(dirname "$0")"
ZIG=ziglang==0.17.1
tools="${TMPDIR:-/tmp}/sidecar-plugins"
mkdir -p "$tools"

if command -v python3 >/dev/null; then
  [ -d "$tools/$ZIG" ] || {
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target "$tools/zig.part" "$ZIG"
    mv "$tools/zig.part" "$tools/$ZIG"
  }
  # The first build compiles the C++ library, which takes minutes.
  (cd cpp && PYTHONPATH="$tools/$ZIG" python3 -m ziglang c++ --target=wasm32-wasi -mexec-model=reactor \
    -O2 -fno-exceptions -fno-rtti -s -Wl,-z,stack-size=65536 -o cpp.wasm plugin.cc)
else
  echo "cpp: no python3 to install $ZIG with" >&2
fi

if command -v npm >/dev/null; then
  mkdir -p "$tools/assemblyscript"
  cp -R assemblyscript/package.json assemblyscript/assembly "$tools/assemblyscript/"
  (cd "$tools/assemblyscript" && npm install --silent --no-audit --no-fund --no-package-lock &&
    npx asc assembly/index.ts -b assemblyscript.wasm --use abort=abort_proc_exit --optimize)
  cp "$tools/assemblyscript/assemblyscript.wasm" assemblyscript/
else
  echo "assemblyscript: no npm" >&2
fi

(cd go && GOOS=wasip1 GOARCH=wasm go build -trimpath -ldflags='-s -w' -buildmode=c-shared -o "$tools/go.wasm" .)
ls -l */*.wasm "$tools/go.wasm"
