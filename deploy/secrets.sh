#!/bin/sh
# Makes the secrets that compose.yaml hands to the containers, where they are not there yet: deploy/secrets.sh [FOLDER]
# The keys for NATS and its configuration are made by the `bootlink` command, or, where there is none, by its image.
# Nobody but the folder's owner gets at it; the files in it may be read by all, because each container reads those that
# it is given as a user of its own.
set -eu
folder=${1:-$(dirname "$0")/secrets}
umask 022
mkdir -p "$folder/nats-server"
chmod 0700 "$folder"
folder=$(cd "$folder" && pwd)
for name in database-password cluster-key admin-token; do
    [ -s "$folder/$name" ] || od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$folder/$name"
done

nats_config() {
    if command -v bootlink >/dev/null; then
        bootlink nats config --keys "$folder/nats" "$@"
    else
        docker run --rm --network none --user "$(id -u):$(id -g)" --volume "$folder:/secrets" \
            "${BOOTLINK_IMAGES:-bootlink}/command:${BOOTLINK_VERSION:-latest}" nats config --keys /secrets/nats "$@"
    fi
}

# Written beside and moved: a configuration cut short would lock everybody out.
nats_config --store /data --monitor 127.0.0.1:8222 >"$folder/nats-server/new"
mv "$folder/nats-server/new" "$folder/nats-server/nats-server.conf"
chmod 0644 "$folder"/nats/*.nk
