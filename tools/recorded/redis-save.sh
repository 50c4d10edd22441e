# What record_traces.py records as redis-save: redis-server is filled, saves in the background, and goes on writing.
# The child that saves takes its time, so that a picture finds both.
folder=$(mktemp -d)
socket=$folder/redis
redis-server --port 0 --unixsocket "$socket" --save "" --appendonly no --dir "$folder" --loglevel warning \
    --rdb-key-save-delay 400 --enable-debug-command yes > /dev/null &
until redis-cli -s "$socket" ping > /dev/null 2>&1; do sleep 0.1; done
redis-cli -s "$socket" debug populate 4000 key 200 > /dev/null
redis-cli -s "$socket" bgsave > /dev/null
redis-benchmark -s "$socket" -n 3000 -t set -r 4000 -d 200 -c 4 -q > /dev/null
sleep 1.5
redis-cli -s "$socket" shutdown nosave > /dev/null
wait
rm -rf "$folder"
