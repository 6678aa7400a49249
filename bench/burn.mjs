// Uses a fixed amount of CPU time, all of this process counted: burn.mjs MILLISECONDS
const limit = Number(process.argv[2]) * 1000;
let x = 1;
for (;;) {
  for (let n = 0; n < 20_000; n += 1) x = (x * 48_271) % 2_147_483_647;
  const { user, system } = process.cpuUsage();
  if (user + system >= limit || x === 0) break;
}
