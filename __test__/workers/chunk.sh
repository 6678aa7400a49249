# A chunk as a process: chunk.sh FOLDER JOB CHUNK ATTEMPT SECONDS
#
# Writes `begin JOB CHUNK ATTEMPT PID MILLISECONDS OWNER` to the ledger, and `end ...` when it has done its work: SECONDS long, or,
# when that is `hold`, until it is killed or the file `release` is there; not at all when the file `gate` is there at its start. A file `fast` makes all of them short.
# `overlap ...` in the ledger: an earlier attempt of the same chunk still ran.
folder=$1 job=$2 chunk=$3 attempt=$4 seconds=$5
if [ -e "$folder/ledger" ]; then
  while read -r what j c a pid rest; do
    if [ "$what $j $c" = "begin $job $chunk" ] && { read -r _ _ state _ < "/proc/$pid/stat"; } 2>/dev/null; then
      case $state in
        Z | X) ;;
        *) echo "overlap $job $chunk $attempt $pid 0" >> "$folder/ledger" ;;
      esac
    fi
  done < "$folder/ledger"
fi
echo "begin $job $chunk $attempt $$ $(date +%s%3N) $FRAMEWRIGHT_OWNER" >> "$folder/ledger"
case $seconds in
  hold) [ -e "$folder/gate" ] || until [ -e "$folder/release" ]; do sleep 0.05; done ;;
  suicide) [ -e "$folder/gate" ] || { kill -9 $PPID; sleep 1000; } ;;
  *) [ -e "$folder/fast" ] || sleep "$seconds" ;;
esac
echo "end $job $chunk $attempt $$ $(date +%s%3N) $FRAMEWRIGHT_OWNER" >> "$folder/ledger"
