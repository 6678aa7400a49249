#!/bin/sh
# A chunk: begins, lives, ends, and says so in the ledger. Each line is appended by one write, so that the order of the lines
# is the order in which it happened, whichever process wrote them. An attempt that is killed has no last line.
ledger=$1 job=$2 chunk=$3 attempt=$4 output=$5 pause=$6
say() {
  echo "$1 $job $chunk $attempt $FRAMEWRIGHT_OWNER $$ $PPID" >> "$ledger"
}
say begin
sleep "$pause"
say lives
sleep "$pause"
echo "$job $chunk $attempt" > "$output"
say end
