# What demo_rounds.sh and cron_rounds.sh share: they source this file, with `fedmill` and `data` set.

# The clients with these numbers (two digits each) as JSON lines. Their speeds are 1 to 4.
clients_as_json() {
    local i
    for i in "$@"; do
        echo "{\"node_id\": \"client-$i\", \"compute_capability\": $((10#$i % 4 + 1)), \"data_size\": 1000," \
            "\"connection_quality\": 0.9, \"privacy_requirements\": {}}"
    done
}

# Makes a new federation in the folder $1 with the clients of the other arguments, and the base model of this folder.
make_federation() {
    rm -rf "$1" "$1-clients" "$1-clients.log"
    "$fedmill" round init "$1" --model "$data/base.safetensors" >/dev/null
    clients_as_json "${@:2}" >"$1.jsonl"
    "$fedmill" clients import "$1" "$1.jsonl" >/dev/null
}

# The end of every fedmill.toml: a round that makes the model worse publishes nothing.
evaluation_settings() {
    cat <<EOF

[evaluation]
command = ["$(command -v python3)", "$data/accuracy.py", "--json"]
metric = "accuracy"
max_regression = 0.01
EOF
}
