#!/bin/sh
# Builds the Rust plugins to NAME/NAME.wasm. Any Rust with the target wasm32-wasip1 will do. Where there
# is none, Debian's rustc-web, rust-web-src, wasi-libc and lld build the standard library along.
set -eu
cd "$(dirname "$0")"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${TMPDIR:-/tmp}/sidecar-plugins}"
cargo=${CARGO:-cargo}
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/wasm32-wasip1" ]; then
  cargo=/usr/bin/cargo
  export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_WASIP1_LINKER=wasm-ld
  export RUSTFLAGS="-L native=/usr/lib/wasm32-wasi -C link-self-contained=no"
  std="-Zbuild-std=std,panic_abort"
fi
# The paths of the machine that builds stay out of the modules.
"$cargo" fetch --locked
for crates in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
  RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$crates=crates"
done
export RUSTFLAGS="$RUSTFLAGS --remap-path-prefix=$(pwd)=."
"$cargo" build --release --locked --target wasm32-wasip1 ${std:-}
for p in */Cargo.toml; do
  p=${p%/Cargo.toml}
  cp "$CARGO_TARGET_DIR/wasm32-wasip1/release/$p.wasm" "$p/$p.wasm"
done
cp "$CARGO_TARGET_DIR/wasm32-wasip1/release/sdk_rust.wasm" sdk/rust/rust.wasm
ls -l */*.wasm
sdk/build.sh
