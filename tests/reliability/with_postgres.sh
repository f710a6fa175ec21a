#!/bin/bash
# Runs a command with a PostgreSQL server of its own on loopback, and takes the server down after.
#
#   with_postgres.sh COMMAND...
#
# COMMAND finds SCALETUNE_POSTGRES, the URL of the server, and SCALETUNE_POSTGRES_SERVER, a script
# that takes `start` or `stop`. Debian's package is installed where no server is found.
set -euo pipefail

programs() { ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1 || true; }
if [ -z "$(programs)" ] && ! command -v initdb >/dev/null; then
    as_root=""
    [ "$(id -u)" = 0 ] || as_root=sudo
    $as_root apt-get update -q && $as_root apt-get install -qy --no-install-recommends postgresql
fi
bin=$(programs)
[ -n "$bin" ] || bin=$(dirname "$(command -v initdb)")

folder=$(mktemp -d)
password=$(head -c 18 /dev/urandom | base64 | tr -d '+/=')
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
echo "$password" >"$folder/password"

# PostgreSQL refuses to run as root.
as_user=()
if [ "$(id -u)" = 0 ]; then
    chown -R postgres "$folder"
    as_user=(su -s /bin/bash postgres -c)
else
    as_user=(bash -c)
fi
chmod 755 "$folder"
"${as_user[@]}" "'$bin/initdb' -D '$folder/data' -U scaletune --pwfile='$folder/password' \
    --auth=scram-sha-256 --no-sync >/dev/null"
cat >"$folder/server" <<SCRIPT
#!/bin/bash
case "\$1" in
    start) command="'$bin/pg_ctl' -D '$folder/data' -w -l '$folder/log' start -o \\
        \"-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories= -c fsync=off\"" ;;
    stop) command="'$bin/pg_ctl' -D '$folder/data' -w -m immediate stop" ;;
esac
$(printf '%q ' "${as_user[@]}") "\$command" >/dev/null
SCRIPT
chmod 755 "$folder/server"
trap '"$folder/server" stop || true; rm -rf "$folder"' EXIT
"$folder/server" start

export SCALETUNE_POSTGRES="postgresql+psycopg2://scaletune:$password@127.0.0.1:$port/postgres"
export SCALETUNE_POSTGRES_SERVER="$folder/server"
"$@"
