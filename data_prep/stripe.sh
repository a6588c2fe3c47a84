#!/usr/bin/env bash
# Set Lustre striping on a directory before shards are written below it.
#   bash data_prep/stripe.sh DIR [COUNT]
# DIR is the directory in which sets of shards are made (shards, where OUT is shards/cifar10-36): a set is written
# beside OUT and renamed, so that it takes its striping from there. COUNT is the number of storage targets a file is
# spread over, -1 for all of them; 1 by default: a rank reads one file, and different files lie on different targets.
# More than 1 pays for shards of several gigabytes. Files that are there already keep their striping.
set -euo pipefail

fail() { echo "stripe.sh: $1" >&2; exit 2; }

[ $# -ge 1 ] && [ $# -le 2 ] || fail "give DIR [COUNT], for example: bash data_prep/stripe.sh shards 4"
dir=$1
count=${2:-1}
[[ $count =~ ^(-1|[1-9][0-9]*)$ ]] || fail "COUNT is '$count'; give a number of storage targets from 1, or -1 for all"
[ ! -e "$dir" ] || [ -d "$dir" ] || fail "$dir is not a directory; give the one in which shards are made"

if ! command -v lfs > /dev/null; then
  echo "stripe.sh: there is no lfs on the PATH, so this is not a machine with Lustre, or its module is not loaded;" \
    "$dir is left as it is. Other file systems need no striping." >&2
  exit 0
fi
mkdir -p -- "$dir"
lfs getstripe -d -- "$dir" > /dev/null 2>&1 || fail "$dir is not on Lustre (lfs getstripe refuses it); give a directory on the parallel file system"
lfs setstripe -c "$count" -- "$dir" || fail "lfs setstripe -c $count $dir was refused; see its message, and \`lfs df\` for the number of targets"
if [ -n "$(find "$dir" -type f -print -quit)" ]; then
  echo "stripe.sh: files that are in $dir already keep their striping; make the shards again for them to take the new one" >&2
fi
echo "$dir: files made from here on are spread over $count storage targets (-1: all)"
