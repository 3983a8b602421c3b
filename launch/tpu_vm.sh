#!/bin/bash
# A training on a TPU slice, from the checkout's root, with gcloud:
#   ZONE=us-east5-b TYPE=v6e-16 VERSION=v2-alpha-tpuv6e SHARED=10.0.0.2:/share \
#       launch/tpu_vm.sh --config=configs/skin7.py --config.data.dir=/shared/data/skin7 \
#       --workdir=/shared/runs/skin7
#   launch/tpu_vm.sh stop      tells it to save and end; the slice stays
#   launch/tpu_vm.sh delete    gives the slice back
# NAME (deepknn): of the slice. SPOT=1: one that may be taken away; another is then asked for.
# SHARED: an NFS export, which all hosts mount as /shared. This script stays until the training has
# ended; run again it ends what still runs and goes on from the last checkpoint.
set -euo pipefail

name=${NAME:-deepknn}
: "${ZONE:?names no zone}"
queue() { gcloud compute tpus queued-resources "$@" --zone="$ZONE" --quiet; }
state() { queue describe "$name" --format='value(state.state)' 2>/dev/null || true; }
on_all() { gcloud compute tpus tpu-vm ssh "$name" --zone="$ZONE" --worker=all --command="$1"; }

# What a host does to end a training: the file gone, the loop below starts none.
end='rm -f ~/deepknn_goes_on
while pkill -TERM -f "^[^ ]*python -m deepknn_jax[.]main"; do sleep 1; done'

start() {
    local archive
    archive=$(mktemp --suffix=.tar.gz)
    git archive --output="$archive" HEAD || return
    gcloud compute tpus tpu-vm scp "$archive" "$name:deepknn.tar.gz" --zone="$ZONE" --worker=all \
        || return
    rm -f "$archive"
    # The hosts' own Python may be too old. 85: told to stop, saved, to go on.
    on_all "set -e
$end
mountpoint -q /shared || {
    sudo apt-get install -y -q nfs-common
    sudo mkdir -p /shared
    sudo mount ${SHARED@Q} /shared
}
rm -rf ~/deepknn
mkdir ~/deepknn
tar -xzf ~/deepknn.tar.gz -C ~/deepknn
cd ~/deepknn
python3 -m pip install -q --user uv
test -d ~/deepknn_python || ~/.local/bin/uv venv -q --python=3.12 ~/deepknn_python
~/.local/bin/uv pip install -q --python=\$HOME/deepknn_python '.[dicom,tpu]'
export PYTHONUNBUFFERED=1 DEEPKNN_JOB=${name@Q}
touch ~/deepknn_goes_on
status=85
while [ \$status = 85 ] && [ -e ~/deepknn_goes_on ]; do
    status=0
    ~/deepknn_python/bin/python -m deepknn_jax.main ${options[*]@Q} || status=\$?
done
exit \$status"
}

case ${1:-} in
stop)
    on_all "$end"
    exit
    ;;
delete)
    queue delete "$name" --force
    exit
    ;;
esac

: "${TYPE:?names no type of slice}" "${VERSION:?names no version of its software}"
: "${SHARED:?names no NFS export}"
options=("$@")
while :; do
    found=$(state)
    echo "slice $name: ${found:-none}"
    case $found in
    "")
        queue create "$name" --node-id="$name" --accelerator-type="$TYPE" \
            --runtime-version="$VERSION" ${SPOT:+--spot}
        ;;
    ACTIVE)
        status=0
        start || status=$? # which is why start returns by itself where a step fails
        [ "$status" != 0 ] || exit 0
        # As long as the slice is there it was the program that failed.
        sleep "${POLL_SECONDS:-30}"
        [ "$(state)" != ACTIVE ] || exit "$status"
        ;;
    FAILED | SUSPENDED) queue delete "$name" --force ;;
    *) sleep "${POLL_SECONDS:-30}" ;;
    esac
done
