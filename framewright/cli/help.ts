/** What `--help` prints. */

export const HELP = `Usage: framewright <command> [options]

  framewright run <job.json>    render the chunks of a job file, then merge them
  framewright plan              print a job file
  framewright --help            this text; also: framewright run --help
  framewright --version

Exit status: 0 done, 1 failed, 2 bad usage or bad job file, 130 interrupted.`;

export const RUN_HELP = `Usage: framewright run <job.json> [options]

  --concurrency N         chunks at once (default: the processors that are available)
  --retries N             further attempts for a chunk that fails (default: 0)
  --chunk ID              render only this chunk, even if it is there, and do not merge
  --no-merge              stop when the chunks are rendered
  --job-dir DIR           where commands run and outputs go (default: the job file's folder)
  --store URL             where the run is kept (default: .framewright/jobs.db, SQLite, in the job file's folder):
                          sqlite:FILE, file:DIR, postgres://..., mysql://..., or memory: to keep nothing
  --allow-outside-paths   let outputs be absolute or leave the job's folder
  --resume                go on from the chunks of an interrupted run (the default)
  --fresh                 render every chunk again
  --json                  print events as lines of JSON, then {"type":"status","status":{...}}

The chunks are merged by "mergeCommand" of the job file; without one, and with "outputFile",
they are joined by ffmpeg into that file without encoding them again.

Ctrl-C stops the chunks that run and keeps the finished ones: the same command goes on from
there, also after the process was killed or the machine went down. A chunk is rendered again if
its output is missing or was changed (size, time), and all are if the job changed. Two runs of
one job file at once: the second says who has it and exits with 1. The store keeps the last run
of each job file.`;

export const PLAN_HELP = `Usage: framewright plan (--total-frames N | --frames RANGES) (--chunk-size N | --chunk-count N)
                        --output PATTERN --command CMD [options]

  --total-frames N        how many frames there are
  --start-frame N         number of the first one (default: 0)
  --frames RANGES         which frames instead, as in "1-100,150-200x2" (x2: every second one)
  --chunk-size N          frames in a chunk
  --chunk-count N         chunks in all
  --output PATTERN        a chunk's file, as in "chunks/{chunkId:04}.mp4"
  --command CMD           renders a chunk; run without a shell
  --merge-command CMD     merges the chunks
  --output-file FILE      the finished file; without a merge command, ffmpeg joins the chunks into it
  --fps N                 (default: 30)
  --width N, --height N   (default: 1920 and 1080)

PATTERN may hold {chunkId}, {startFrame} and {endFrame}; CMD also {frameCount}, {frameStep},
{outputFile}, {jobId} and {attempt}; {chunkId:04} pads with zeros.

  framewright plan --total-frames 240 --chunk-count 8 --output '{chunkId:03}.mp4' \\
    --command 'blender -b scene.blend -s {startFrame} -e {endFrame} -o {outputFile} -a' > job.json`;
