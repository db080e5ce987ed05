#!/bin/sh
# The integration tests start an object store (OpenStack Swift, which speaks S3) and PostgreSQL of
# their own. This installs Debian's packages of both where they are missing; no service is started.
set -eu
packages=
command -v swift-proxy-server >/dev/null 2>&1 || packages="$packages swift-proxy"
command -v swift-account-server >/dev/null 2>&1 || packages="$packages swift-account"
command -v swift-container-server >/dev/null 2>&1 || packages="$packages swift-container"
command -v swift-object-server >/dev/null 2>&1 || packages="$packages swift-object"
command -v memcached >/dev/null 2>&1 || packages="$packages memcached"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || packages="$packages postgresql"
if [ -z "$packages" ]; then exit 0; fi

echo "== Installing services for the integration tests:$packages"
if ! command -v apt-get >/dev/null 2>&1; then
  echo "There is no apt-get here: install$packages by hand, then run this again." >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "Only root can install them: run 'sudo sh tests/install_services.sh', then this again." >&2
  exit 1
fi

# Debian starts services when it installs them; 101 says that it must not.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
apt-get update -qq
log=$(mktemp)
# shellcheck disable=SC2086 -- a list of words
if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages \
  >"$log" 2>&1; then
  cat "$log" >&2
  exit 1
fi
rm -f "$log"
