#!/bin/sh
# The report's test opens the page in Chromium. Uses what is there; else installs Debian's package.
set -eu
for name in chromium chromium-browser google-chrome; do  # as tests/report looks for
  if command -v "$name" >/dev/null 2>&1; then exit 0; fi
done
echo "== Installing Chromium for the report's test"
if ! command -v apt-get >/dev/null 2>&1; then
  echo "No Chromium found and no apt-get to install it: install chromium and run this again." >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "Only root can install it: run 'sudo sh tests/install_chromium.sh', then this again." >&2
  exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
