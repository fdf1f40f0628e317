#!/usr/bin/env bash
# Starts a Docker engine and builds the image for the tests marked `engine`: . tests/engine.sh [FOLDER]
# With ENGINE=later, it only defines `engine`, which does that, and `engine_stop`.
# Uses a running engine if one answers; otherwise, as root on Debian, installs one and runs it in FOLDER, by default
# .venv/engine. Uses the public base image and torch index if they answer; otherwise builds a base with debootstrap
# and serves the torch wheel that pip finds. Exports DOCKER_HOST; `engine_stop` stops what was started.
# Returns 3 if no engine, no base image or no torch can be had, and another code if the image does not build.

engine_answers() { docker version >/dev/null 2>&1; }

engine_start() {
    local folder=$1
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "no Docker engine answers, and installing one needs root on Debian" >&2
        return 3
    fi
    command -v dockerd >/dev/null || {
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends docker.io debootstrap >/dev/null
    } || return 3
    dockerd --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/pid" \
        -H "unix://$folder/docker.sock" >"$folder/dockerd.log" 2>&1 &
    mkdir -p "$folder/bin" && ln -sf /usr/bin/docker "$folder/bin/docker" # prefer the client installed with the engine
    export DOCKER_HOST="unix://$folder/docker.sock" PATH="$folder/bin:$PATH"
    for _ in $(seq 60); do engine_answers && return 0; sleep 0.5; done
    echo "the Docker engine did not start:" >&2
    tail -n 5 "$folder/dockerd.log" >&2
    return 3
}

engine_base() { # prints the name of an available base image
    local folder=$1 public made=localhost/pemt-base:bookworm
    public=$(sed -n 's/^ARG BASE_IMAGE=//p' Dockerfile)
    if docker image inspect "$made" >/dev/null 2>&1; then echo "$made"; return; fi
    if timeout 120 docker pull --quiet "$public" >/dev/null 2>&1; then echo "$public"; return; fi
    debootstrap --variant=minbase --include=python3,python3-pip,python3-venv,ca-certificates bookworm \
        "$folder/rootfs" >"$folder/debootstrap.log" 2>&1 || return 3
    tar -C "$folder/rootfs" -c . | docker import - "$made" >/dev/null && echo "$made"
    rm -rf "$folder/rootfs"
}

engine_torch() { # prints the URL of a local torch index if the one in the Dockerfile does not answer
    local folder=$1 public
    public=$(sed -n 's/^ARG TORCH_INDEX=//p' Dockerfile)
    if python3 -c "import urllib.request as r; r.urlopen('$public/torch/', timeout=10)" 2>/dev/null; then return; fi
    mkdir -p "$folder/index/torch"
    pip download --quiet --no-deps --dest "$folder/index/torch" --constraint constraints.txt torch >&2 || return 3
    python3 -u -m http.server 0 --bind 127.0.0.1 --directory "$folder/index" >"$folder/index.log" 2>&1 &
    echo $! >"$folder/index.pid"
    for _ in $(seq 40); do grep -q 'port' "$folder/index.log" && break; sleep 0.25; done
    sed -n 's#.*\(http://[^/]*\)/.*#\1#p' "$folder/index.log" | head -n 1
}

engine_stop() { # stops what `engine` started
    local folder file pid
    folder=$(realpath -m "${1:-.venv/engine}")
    for file in "$folder/index.pid" "$folder/pid"; do
        [ -f "$file" ] || continue
        pid=$(cat "$file") # the engine removes its own file
        kill "$pid" 2>/dev/null
        for _ in $(seq 40); do kill -0 "$pid" 2>/dev/null || break; sleep 0.25; done
        rm -f "$file"
    done
    umount "$folder"/exec/netns/* 2>/dev/null # dockerd leaves these mounts behind
    return 0
}

engine() {
    local folder base index
    folder=$(realpath -m "${1:-.venv/engine}")
    mkdir -p "$folder"
    engine_answers || engine_start "$folder" || return 3
    base=$(engine_base "$folder") && [ -n "$base" ] || { echo "no base image could be had" >&2; return 3; }
    index=$(engine_torch "$folder") || { echo "torch could not be had for the image" >&2; return 3; }
    set -- --base-image "$base" ${index:+--torch-index "$index"} ${SSL_CERT_FILE:+--ca "$SSL_CERT_FILE"}
    python -m pipelines.image "$@" || python -m pipelines.image "$@" # retry, as a package index may fail briefly
}

[ "${ENGINE-}" = later ] || engine "$@"
