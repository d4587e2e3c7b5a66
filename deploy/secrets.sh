#!/bin/sh
# Makes the secrets that compose.yaml hands to the containers, where they are not there yet: deploy/secrets.sh [FOLDER]
# Nobody but the folder's owner gets at it; the files in it may be read by all, because each container reads those that
# it is given as a user of its own.
set -eu
folder=${1:-$(dirname "$0")/secrets}
umask 022
mkdir -p "$folder"
chmod 0700 "$folder"
for name in database-password cluster-key admin-token; do
    [ -s "$folder/$name" ] || od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$folder/$name"
done
