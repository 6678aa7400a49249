// One measurement in a process of its own: child.mjs FIGURE SIDE SETTINGS. The last line of output is the result.
const [file, side, settings] = process.argv.slice(2);
const { default: figure } = await import(`./figures/${file}`);
const result = await figure.sides[side].run(JSON.parse(settings));
process.stdout.write(`\n${JSON.stringify(result)}\n`, () => process.exit());
