#!/bin/sh
# Installs what the lab and the tests need on a Debian machine, and only what is missing.
set -eu

missing=
need() { # PROGRAM PACKAGE
	PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need qemu-system-x86_64 qemu-system-x86
need kexec kexec-tools
need makedumpfile makedumpfile
need crash crash
need cpio cpio
need xz xz-utils
need zstd zstd
need gzip gzip
need setpriv util-linux
need cc gcc
need c++ g++
need make make
need pahole dwarves
need mke2fs e2fsprogs
need python3 python3
need chromium chromium
if ! python3 -c 'import ensurepip, venv' >/dev/null 2>&1; then
	missing="$missing python3-venv"
fi
# A busybox that needs libraries does not run in the guest.
if ! busybox 2>/dev/null | head -n 1 | grep -q BusyBox || ldd "$(command -v busybox)" >/dev/null 2>&1; then
	missing="$missing busybox-static"
fi

as_root=
if [ "$(id -u)" != 0 ]; then
	as_root=sudo
	command -v sudo >/dev/null 2>&1 || as_root=
fi
if [ -n "$missing" ] && [ -z "$as_root" ] && [ "$(id -u)" != 0 ]; then
	echo "error: these packages are not installed:$missing" >&2
	echo "hint: as root, run: apt-get install$missing" >&2
	exit 7
fi

# apt knows the kernels only after an update, and a fresh container has had none.
if [ -n "$missing" ] || ! apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1; then
	echo "setup: reading the package lists"
	$as_root apt-get -q update
fi
if [ -n "$missing" ]; then
	echo "setup: installing$missing"
	# kexec-tools would ask whether it may handle reboots: it may not.
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install $missing
else
	echo "setup: nothing is missing"
fi
