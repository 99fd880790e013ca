#!/bin/sh
# Installs Debian's Prometheus and promtool, for the tests that need them (test/prometheus.test.ts); they are skipped
# where there is none. With root's rights the package is installed. Without, or with a folder, it is only unpacked there:
#
#   tools/install-prometheus.sh [FOLDER]
#   PATH="$FOLDER/usr/bin:$PATH" npx vitest run prometheus
set -eu

if [ $# -eq 0 ] && [ "$(id -u)" = 0 ]; then
  apt-get update -qq
  # Recommended are its service and fonts, neither of which is needed.
  apt-get install -y -qq --no-install-recommends prometheus
  # Nobody has asked for the service.
  if command -v systemctl >/dev/null; then systemctl disable --now prometheus || true; fi
  exit 0
fi

if [ $# -eq 0 ]; then
  echo "usage: $0 FOLDER (or as root, to install it)" >&2
  exit 2
fi
mkdir -p "$1"
cd "$1"
apt-get download prometheus
dpkg-deb --extract prometheus_*.deb .
echo "put this first into PATH: $PWD/usr/bin"
