#!/usr/bin/env bash
# The kernels on 64-bit ARM: their tests are compiled for it, run under emulation (QEMU), and searched for NEON's instructions.
# Installs the target with rustup, and Debian's or Ubuntu's compiler and emulator where they are missing (as root). Speed is
# not measured: emulation says nothing about it.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
rustup target add $target
if ! command -v aarch64-linux-gnu-gcc > /dev/null || ! command -v qemu-aarch64 > /dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user > /dev/null
fi
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
cargo test --release --locked -p clipood-kernels --lib --tests --target $target

# Arrays are vectors only where the compiler makes them so.
tests=$(find target/$target/release/deps -name 'clipood_kernels-*' -executable -printf '%T@ %p\n' | sort -rn | head -1 | cut -d ' ' -f 2)
code=$(aarch64-linux-gnu-objdump -d "$tests")
of_four=$(grep -c 'fmla.*\.4s' <<< "$code" || true)
of_one=$(grep -cP 'fmadd\ts' <<< "$code" || true)
echo "the tests have $of_four fused multiplications of four values and $of_one of one"
if [ "$of_four" -lt $((5 * of_one)) ]; then
    echo "make check-arm: the products are not compiled to NEON's vectors: expected five times as many of four values" >&2
    exit 1
fi
