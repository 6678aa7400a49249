// Written by `npm run build`.
export * from './index.js';
