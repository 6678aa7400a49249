// npm run bench: every figure in fresh processes, in turn with its peers, and the medians against the targets of the design.
// node bench/run.mjs [--only PATTERN] [--runs N] [--jobs N] [--name NAME] [--package FOLDER] [--list]
import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, totalmem } from 'node:os';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { root } from './support.mjs';

const { values: given } = parseArgs({
  options: {
    only: { type: 'string', default: '' },
    runs: { type: 'string', default: '5' },
    /** Of the figure with a million jobs. */
    jobs: { type: 'string', default: '1000000' },
    /** Of the file with the results. */
    name: { type: 'string', default: new Date().toISOString().replace(/[:.]/g, '-').slice(0, 19) },
    /** Another folder with the built package. */
    package: { type: 'string', default: process.env.FRAMEWRIGHT_BENCH_PACKAGE ?? root },
    list: { type: 'boolean', default: false },
  },
});
const runs = Number(given.runs);
const settings = { jobs: Number(given.jobs) };
const environment = { ...process.env, FRAMEWRIGHT_BENCH_PACKAGE: given.package };

/** Runs one side of a figure in a process of its own; gives what its last line of output says. */
function measure(figure, name, side) {
  const [program, ...args] = side.command?.() ?? [
    process.execPath,
    ...(side.flags ?? []),
    join(root, 'bench', 'child.mjs'),
    figure.file,
    name,
    JSON.stringify(settings),
  ];
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: root, env: environment, stdio: ['ignore', 'pipe', 'inherit'] });
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (data) => (text += data));
    child.on('error', reject);
    child.on('close', (code, signal) => {
      const last = text.trimEnd().split('\n').at(-1);
      if (code === 0) resolve(JSON.parse(last));
      else reject(new Error(`${figure.title}, ${name}: ended with ${signal ?? code}\n${text}`));
    });
  });
}

function median(numbers) {
  const sorted = numbers.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

const medians = (results) => Object.fromEntries(Object.keys(results[0]).map((key) => [key, median(results.map((result) => result[key]))]));

function shown(value) {
  if (value === undefined || Number.isNaN(value)) return '';
  if (typeof value === 'string') return value;
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString('en-US');
  return value.toFixed(Math.abs(value) < 100 ? 2 : 0);
}

function table(rows) {
  const cells = [['', 'median', 'unit', 'peers', 'target', ''], ...rows.map((row) => [
    row.what,
    shown(row.value),
    row.unit,
    Object.entries(row.peers ?? {}).map(([name, value]) => `${name} ${shown(value)} (${shown(row.value / value)} x)`).join(', '),
    row.target ?? '',
    row.met === undefined ? '' : row.met ? 'holds' : 'MISSED',
  ])];
  const widths = cells[0].map((_, n) => Math.max(...cells.map((row) => row[n].length)));
  return cells.map((row) => row.map((cell, n) => (n === 1 ? cell.padStart(widths[n]) : cell.padEnd(widths[n]))).join('  ').trimEnd()).join('\n');
}

const figures = [];
for (const file of readdirSync(join(root, 'bench', 'figures')).sort()) {
  const { default: figure } = await import(`./figures/${file}`);
  const name = basename(file, '.mjs');
  if (new RegExp(given.only).test(name)) figures.push({ ...figure, name, file });
}
if (given.list) {
  for (const figure of figures) console.log(`${figure.name}: ${figure.title}`);
  process.exit();
}

const results = [];
let failed = false;
for (const figure of figures) {
  const times = Math.min(runs, figure.mostRuns ?? runs);
  console.log(`\n${figure.name}: ${figure.title}; ${times} runs, load ${loadavg()[0].toFixed(1)}`);
  try {
    figure.prepare?.();
    const all = Object.fromEntries(Object.keys(figure.sides).map((side) => [side, []]));
    // In turn, so that a neighbour's noise meets all sides alike.
    for (let n = 0; n < times; n += 1) {
      for (const [side, how] of Object.entries(figure.sides)) all[side].push(await measure(figure, side, how));
    }
    const middle = Object.fromEntries(Object.entries(all).map(([side, list]) => [side, medians(list)]));
    const rows = figure.rows(middle);
    console.log(table(rows));
    results.push({ figure: figure.name, title: figure.title, runs: times, rows, medians: middle, all });
  } catch (error) {
    failed = true;
    console.error(String(error?.message ?? error));
    results.push({ figure: figure.name, title: figure.title, error: String(error?.message ?? error) });
  }
}

const missed = results.flatMap(({ rows = [] }) => rows.filter((row) => row.met === false));
const open = results.flatMap(({ rows = [] }) => rows.filter((row) => row.target?.startsWith('<=') && row.met === undefined));
if (open.length > 0) console.log(`\nNot judged: ${open.map((row) => row.what).join('; ')}`);
console.log(`\n${missed.length === 0 ? 'Nothing judged was missed.' : `Missed: ${missed.map((row) => row.what).join('; ')}`}`);
const folder = join(root, 'bench', 'results');
mkdirSync(folder, { recursive: true });
const file = join(folder, `${given.name}.json`);
const machine = { node: process.version, cpu: cpus()[0]?.model, cores: availableParallelism(), memoryBytes: totalmem(), load: loadavg() };
writeFileSync(file, `${JSON.stringify({ at: new Date().toISOString(), machine, results }, undefined, 2)}\n`);
console.log(`Written to ${file}`);
process.exitCode = failed ? 1 : 0;
