# Sourced by the scripts beside it: what a target's short name stands for, and a Rust 1.85 that knows it.
#
# The compiler and both ARM standard libraries are Debian's own packages, unpacked under .tools/arm and run from there: they can
# neither replace the Rust of this machine nor be replaced by it, and no toolchain server is asked.
# shellcheck shell=bash

TARGETS=(aarch64 armv7)
ARM_RUST=$PWD/.tools/arm
ARM_RUST_VERSION=1.85

# Sets TRIPLE, GNU (the C toolchain's name, and where its libraries are) and QEMU for a short name.
select_target() {
  case ${1:-} in
    aarch64) TRIPLE=aarch64-unknown-linux-gnu GNU=aarch64-linux-gnu QEMU=qemu-aarch64-static ;;
    armv7) TRIPLE=armv7-unknown-linux-gnueabihf GNU=arm-linux-gnueabihf QEMU=qemu-arm-static ;;
    *) die "no target '${1:-}'; there are: ${TARGETS[*]}" ;;
  esac
}

# Cargo for the selected target. A directory of its own under the usual one, so that two compilers do not undo each other's work.
arm_cargo() {
  local triple=${TRIPLE^^}
  triple=${triple//-/_}
  env "CARGO_TARGET_${triple}_LINKER=$GNU-gcc" \
    "CARGO_TARGET_${triple}_RUNNER=$QEMU -L /usr/$GNU" \
    "CARGO_TARGET_DIR=$(arm_target_dir)" \
    "RUSTC=$ARM_RUST/usr/bin/rustc" "RUSTDOC=$ARM_RUST/usr/bin/rustdoc" \
    "LD_LIBRARY_PATH=$ARM_RUST/usr/lib/x86_64-linux-gnu" \
    "$ARM_RUST/usr/bin/cargo" "$@" --locked --target "$TRIPLE"
}

arm_target_dir() { echo "${CARGO_TARGET_DIR:-$PWD/target}/arm"; }

# Where `targets/build` leaves the program for the selected target.
arm_binary() { echo "$(arm_target_dir)/$TRIPLE/release/larder"; }

# Makes everything above work, once; a moment when it has been done.
install_toolchain() {
  tests/setup targets >&2
  if [ "$(cat "$ARM_RUST/installed" 2>/dev/null)" = "$ARM_RUST_VERSION" ]; then return; fi
  [ "$(uname -m)" = x86_64 ] || die "this way to build needs an x86_64 machine; targets/README.md has others"
  grep -q '^VERSION_CODENAME=bookworm' /etc/os-release ||
    die "this way to build needs Debian 12: later ones have no Rust $ARM_RUST_VERSION; targets/README.md has others"

  (
    flock 9
    [ "$(cat "$ARM_RUST/installed" 2>/dev/null)" = "$ARM_RUST_VERSION" ] && exit
    echo "targets: unpacking Debian's Rust $ARM_RUST_VERSION for ${TARGETS[*]} into .tools/arm" >&2
    rm -rf "$ARM_RUST"
    unpack_toolchain
    LD_LIBRARY_PATH=$ARM_RUST/usr/lib/x86_64-linux-gnu "$ARM_RUST/usr/bin/rustc" --version |
      grep -q "^rustc $ARM_RUST_VERSION" || die "what was unpacked is not rustc $ARM_RUST_VERSION"
    echo "$ARM_RUST_VERSION" >"$ARM_RUST/installed"
  ) 9>.tools/arm.lock
}

# apt with lists and a cache of its own: to add an architecture to the machine's own apt would be felt far beyond this checkout.
unpack_toolchain() {
  local apt=$ARM_RUST/apt mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg package
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' 'Origin: Debian' |
    awk '$2 == "bookworm" { print $1; exit }')
  [ "$mirror" ] || die "apt knows no mirror of Debian's bookworm: apt-get update?"
  [ -r "$keyring" ] || die "no $keyring: apt-get install debian-archive-keyring"

  mkdir -p "$apt"/{lists,cache,debs}
  echo "deb [signed-by=$keyring] $mirror bookworm main" >"$apt/sources.list"
  cat >"$apt/preferences" <<END
Package: *
Pin: version $ARM_RUST_VERSION.*
Pin-Priority: 1001
END
  cat >"$apt/apt.conf" <<END
APT::Architecture "amd64";
APT::Architectures { "amd64"; "arm64"; "armhf"; };
APT::Sandbox::User "root";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "$apt/preferences";
Dir::Etc::preferencesparts "/dev/null";
Dir::State::lists "$apt/lists";
Dir::Cache "$apt/cache";
END
  export APT_CONFIG=$apt/apt.conf
  apt-get --quiet --quiet update >&2
  (cd "$apt/debs" && apt-get --quiet --quiet download rustc-web cargo-web libstd-rust-web-"$ARM_RUST_VERSION" \
    libstd-rust-web-dev libstd-rust-web-dev:arm64 libstd-rust-web-dev:armhf >&2)
  for package in "$apt"/debs/*.deb; do dpkg -x "$package" "$ARM_RUST"; done
  rm -rf "$apt"
}

die() {
  echo "targets: $*" >&2
  exit 1
}
