import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['__test__/**/*.test.ts'],
    pool: 'forks',
    testTimeout: 20_000,
    // Where nobody sees what else the machine does, a test has a second try; that it was needed is printed, and is a fault to mend.
    retry: process.env.CI ? 1 : 0,
    hookTimeout: 30_000,
    teardownTimeout: 10_000,
    server: {
      // The built package is loaded by Node itself, as in a user's program, and so once per process however it is asked for.
      deps: { external: [/\/dist\/index\.(mjs|js)$/] },
    },
  },
});
