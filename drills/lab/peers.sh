#!/bin/sh
# The newest crash and makedumpfile that Debian has, run here out of their unpacked packages with their own loader
# and libraries: nothing is installed, and no privileges are needed. The first call downloads some 40 MB.
#
#   sh drills/lab/peers.sh crash [ARGUMENT…]            # sh drills/lab/peers.sh crash VMLINUX DUMP
#   sh drills/lab/peers.sh makedumpfile [ARGUMENT…]
#   sh drills/lab/peers.sh versions
#
# KDT_PEERS_SUITE names another suite than sid. To renew them, remove the folder `peers` of the lab's cache.
set -eu

suite=${KDT_PEERS_SUITE:-sid}
cache=${KDT_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kdt-lab}
peers=$cache/peers/$suite
root=$peers/root

fill() {
	for program in apt-get apt-cache dpkg-deb; do
		command -v "$program" >/dev/null 2>&1 || {
			echo "error: $program is missing: the peers are taken from Debian packages" >&2
			exit 3
		}
	done
	mkdir -p "$(dirname "$peers")"
	mirror=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)' 'Created-By: Packages' |
		sed -n 's/^Debian|Debian|main|//p' | head -n 1)
	[ -n "$mirror" ] || {
		echo "error: this machine's apt sources have no Debian archive" >&2
		exit 3
	}
	# In a folder of its own until it is whole: two may fill at once.
	new=$(mktemp -d "$peers.XXXXXX")
	mkdir -p "$new/lists/partial" "$new/archives/partial" "$new/debs" "$new/root"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$new/sources.list"
	: >"$new/status"
	cat >"$new/apt.conf" <<-CONF
		Dir::State::Lists "$new/lists";
		Dir::Cache "$new";
		Dir::Etc::SourceList "$new/sources.list";
		Dir::Etc::SourceParts "-";
		Dir::State::Status "$new/status";
		Acquire::Languages "none";
		APT::Sandbox::User "";
	CONF
	APT_CONFIG=$new/apt.conf
	export APT_CONFIG
	echo "peers: reading the package lists of $suite" >&2
	apt-get -q -o APT::Update::Error-Mode=any update >/dev/null
	# What they need, and what that needs; of alternatives the first, which is not virtual.
	packages=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
		--no-enhances crash makedumpfile | grep '^[a-z0-9]' | grep -v -e '^debconf' -e '^perl' -e '^dpkg' -e '^tar$' | sort -u)
	echo "peers: taking crash, makedumpfile and their libraries" >&2
	# shellcheck disable=SC2086 # each word is one package
	(cd "$new/debs" && apt-get -q download $packages >/dev/null)
	for deb in "$new"/debs/*.deb; do
		dpkg-deb -x "$deb" "$new/root"
	done
	rm -rf "$new/debs" "$new/lists" "$new"/*pkgcache.bin
	: >"$new/ready"
	rm -rf "$peers"
	mv -T "$new" "$peers" 2>/dev/null || rm -rf "$new"
}

program() { # NAME
	for dir in usr/bin usr/sbin bin sbin; do
		[ -x "$root/$dir/$1" ] && echo "$root/$dir/$1" && return
	done
	echo "error: there is no $1 among the peers" >&2
	exit 3
}

start() { # NAME ARGUMENT…
	path=$(program "$1")
	shift
	loader=$(find "$root/usr/lib64" "$root/usr/lib" "$root/lib64" -name 'ld-linux-x86-64.so.2' 2>/dev/null | head -n 1)
	exec "$loader" --library-path "$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu" "$path" "$@"
}

[ -e "$peers/ready" ] || fill
case ${1:-} in
crash | makedumpfile) start "$@" ;;
versions)
	(start crash --version) | grep -m 1 .
	(start makedumpfile -v) | grep -m 1 .
	;;
*)
	sed -n '2,9s/^# \{0,1\}//p' "$0"
	exit 2
	;;
esac
