// The checks that need no test to run: format, lints, types, and the package as it would be shipped.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packDirectory, stageMain } from './package.mjs';
import { assertNothingPlanted } from './planted.mjs';
import { output, run, step, succeeds, tool } from './steps.mjs';

/** `napi build` names its target, and cargo keeps what is built so in a folder of its own: naming it too shares the dependencies. */
function cargoTarget() {
  const host = /^host: (.+)$/m.exec(output('rustc', ['-vV']))?.[1];
  return host ? ['--target', host] : [];
}

export async function checkRust() {
  await step('format (cargo fmt --check)', () => run('cargo', ['fmt', '--all', '--check']));
  await step('lints (cargo clippy)', () => run('cargo', ['clippy', '--workspace', '--all-targets', ...cargoTarget(), '--', '-D', 'warnings']));
  for (const store of ['', 'sqlite', 'postgres', 'mysql']) {
    const alone = ['--package', 'framewright-core', '--lib', '--no-default-features', '--features', store];
    await step(`the engine with ${store || 'no database'} alone (cargo clippy)`, () => run('cargo', ['clippy', ...alone, ...cargoTarget(), '--', '-D', 'warnings']));
  }
}

/** Looks at what the addon is built with. */
export async function checkFeatures() {
  await step('no test features in the addon (cargo tree)', assertNothingPlanted);
}

export async function testRust() {
  const target = cargoTarget();
  // As in vitest.config.mts.
  const retries = process.env.CI ? ['--retries', '1'] : [];
  if (succeeds('cargo', ['nextest', '--version'])) {
    await step('Rust tests (cargo nextest run)', () => run('cargo', ['nextest', 'run', '--workspace', ...retries, ...target]));
    await step('Rust examples in docs (cargo test --doc)', () => run('cargo', ['test', '--doc', '--package', 'framewright-core', ...target]));
  } else {
    await step('Rust tests (cargo test)', () => run('cargo', ['test', '--workspace', ...target]));
  }
}

/** The sources' own types were checked when they were built. */
export async function checkTypeScript() {
  await step('types of tests, benchmarks, examples (tsc)', () => tool('typescript', ['--project', 'tsconfig.test.json'], { bin: 'tsc' }));
  await step('lints (eslint)', () => tool('eslint', ['.', '--max-warnings', '0']));
}

/** Looks at the main package as users get it. */
export async function checkPackage() {
  const folder = mkdtempSync(join(tmpdir(), 'framewright-check-'));
  try {
    const staged = stageMain(join(folder, 'staged'));
    const tarball = packDirectory(staged, folder);
    await step('package (publint)', () => tool('publint', [tarball, '--strict']));
    await step('package types (attw)', () => tool('@arethetypeswrong/cli', [tarball, '--no-emoji', '--format', 'table-flipped'], { bin: 'attw' }));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
