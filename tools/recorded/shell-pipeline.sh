# What record_traces.py records as shell-pipeline: two pipelines of five commands, and a loop of short ones.
for round in 1 2; do
    seq 1 5000 | sort -rn | uniq | head -20 | wc -l
done
words=0
for name in /etc/passwd /etc/group /etc/hosts; do
    lines=$(wc -l < "$name")
    words=$((words + lines))
done
echo "$words" > /dev/null
