// Bundles the public types of framewright/index.ts into one file; the build runs it.
import dts from 'rollup-plugin-dts';

export default {
  input: 'framewright/index.ts',
  output: { file: 'index.d.ts', format: 'es', banner: '// Written by `npm run build` from framewright/index.ts.' },
  external: [/^node:/],
  plugins: [dts({ tsconfig: 'tsconfig.json' })],
};
