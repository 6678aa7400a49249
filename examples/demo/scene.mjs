/**
 * The scene of the demo: glossy balls circling over a mirror floor at dusk, ray traced on the CPU.
 * A frame depends on nothing but its number, so any process can render any frame.
 */

const BALLS = 11;
/** Per ball: centre x, y, z, radius, colour r, g, b, mirror 0..1. */
const FIELDS = 8;
const FLOOR = BALLS;
const SKY = -1;
const MAX_BOUNCES = 3;
const SUN = unit(-0.62, 0.5, -0.45);
const SUN_COLOUR = [1.5, 1.12, 0.78];

function unit(x, y, z) {
  const length = Math.hypot(x, y, z);
  return [x / length, y / length, z / length];
}

/** Where the balls are after `seconds`. */
function place(seconds) {
  const balls = new Float64Array(BALLS * FIELDS);
  const put = (index, x, y, z, radius, colour, mirror) => balls.set([x, y, z, radius, ...colour, mirror], index * FIELDS);
  put(0, 0, 1.25 + 0.08 * Math.sin(1.3 * seconds), 0, 1.25, [0.9, 0.92, 0.95], 0.78);
  for (let i = 1; i < BALLS; i += 1) {
    const inner = i <= 4;
    const place = inner ? (i - 1) / 4 : (i - 5) / 6;
    const angle = 2 * Math.PI * place + (inner ? 0.75 : -0.42) * seconds;
    const distance = inner ? 2.25 : 3.7;
    const radius = inner ? 0.46 : 0.62 + 0.12 * Math.sin(5.1 * i);
    const hop = Math.abs(Math.sin(1.55 * seconds + 1.9 * i)) * (inner ? 0.95 : 0.5);
    put(i, distance * Math.cos(angle), radius + hop, distance * Math.sin(angle), radius, hue(0.02 + (i - 1) / (BALLS - 1)), inner ? 0.22 : 0.14);
  }
  return balls;
}

/** A colour of the wheel, 0..1 once around. */
function hue(turn) {
  const channel = (shift) => 0.5 + 0.45 * Math.cos(2 * Math.PI * (turn + shift));
  return [channel(0) ** 1.6, channel(0.67) ** 1.6, channel(0.33) ** 1.6];
}

/** Renders frame `frame` into `out`: RGB, 8 bits each, row by row. */
export function renderFrame(frame, fps, width, height, out) {
  const seconds = frame / fps;
  const balls = place(seconds);

  const turn = 0.5 + 0.22 * seconds;
  const eye = [7.6 * Math.cos(turn), 2.5 + 0.7 * Math.sin(0.4 * seconds), 7.6 * Math.sin(turn)];
  const forward = unit(-eye[0], 0.95 - eye[1], -eye[2]);
  const right = unit(-forward[2], 0, forward[0]);
  const up = [right[1] * forward[2] - right[2] * forward[1], right[2] * forward[0] - right[0] * forward[2], right[0] * forward[1] - right[1] * forward[0]];
  const zoom = 1.75;

  let red = 0;
  let green = 0;
  let blue = 0;
  let surface = SKY;

  /** How much of the sun is seen from a point: 0 in the shadow, soft at its edge. */
  function sunlight(x, y, z, self) {
    let light = 1;
    for (let i = 0; i < BALLS; i += 1) {
      if (i === self) continue;
      const at = i * FIELDS;
      const dx = x - balls[at];
      const dy = y - balls[at + 1];
      const dz = z - balls[at + 2];
      const along = dx * SUN[0] + dy * SUN[1] + dz * SUN[2];
      if (along > 0) continue;
      const square = dx * dx + dy * dy + dz * dz;
      const gap = Math.sqrt(Math.max(0, square - along * along)) - balls[at + 3];
      const edge = 0.5 + (5.5 * gap) / -along;
      if (edge >= 1) continue;
      if (edge <= 0) return 0;
      light = Math.min(light, edge * edge * (3 - 2 * edge));
    }
    return light;
  }

  /** How open the sky is over a point: darker where balls are near. */
  function openness(x, y, z, nx, ny, nz, self) {
    let open = 1;
    for (let i = 0; i < BALLS; i += 1) {
      if (i === self) continue;
      const at = i * FIELDS;
      const dx = balls[at] - x;
      const dy = balls[at + 1] - y;
      const dz = balls[at + 2] - z;
      const square = dx * dx + dy * dy + dz * dz;
      const radius = balls[at + 3];
      if (square > 30 * radius * radius) continue;
      const facing = (nx * dx + ny * dy + nz * dz) / Math.sqrt(square);
      if (facing > 0) open *= 1 - Math.min(1, (facing * radius * radius) / square);
    }
    return open;
  }

  /** The light that comes along a ray, left in red, green and blue; what it hit first in surface. */
  function trace(ox, oy, oz, dx, dy, dz) {
    let r = 0;
    let g = 0;
    let b = 0;
    let weight = 1;
    let self = SKY;
    for (let bounce = 0; ; bounce += 1) {
      let nearest = Infinity;
      let hit = SKY;
      if (dy < 0 && self !== FLOOR) {
        nearest = -oy / dy;
        hit = FLOOR;
      }
      for (let i = 0; i < BALLS; i += 1) {
        if (i === self) continue;
        const at = i * FIELDS;
        const cx = ox - balls[at];
        const cy = oy - balls[at + 1];
        const cz = oz - balls[at + 2];
        const along = cx * dx + cy * dy + cz * dz;
        if (along > 0) continue;
        const radius = balls[at + 3];
        const under = along * along - (cx * cx + cy * cy + cz * cz) + radius * radius;
        if (under < 0) continue;
        const distance = -along - Math.sqrt(under);
        if (distance > 0 && distance < nearest) {
          nearest = distance;
          hit = i;
        }
      }
      if (bounce === 0) surface = hit;

      // The sky: orange at the horizon, deep blue above, a glow around the sun.
      const toSun = Math.max(0, dx * SUN[0] + dy * SUN[1] + dz * SUN[2]);
      const height = Math.max(0, dy);
      const low = Math.exp(-5.5 * height);
      const glow = toSun ** 8;
      const disc = toSun > 0.9975 ? Math.min(1, (toSun - 0.9975) / 0.0012) * 6 : 0;
      const skyR = 0.035 + 0.52 * low + 0.5 * glow + disc;
      const skyG = 0.06 + 0.23 * low + 0.25 * glow + disc * 0.82;
      const skyB = 0.19 + 0.1 * low + 0.08 * glow + disc * 0.55;
      if (hit === SKY) {
        r += weight * skyR;
        g += weight * skyG;
        b += weight * skyB;
        break;
      }

      const x = ox + dx * nearest;
      const y = oy + dy * nearest;
      const z = oz + dz * nearest;
      let nx = 0;
      let ny = 1;
      let nz = 0;
      let cr;
      let cg;
      let cb;
      let mirror;
      let haze = 0;
      if (hit === FLOOR) {
        // Tiles whose edges fade with the distance, so that they do not flicker.
        const sharp = Math.min(12, 60 / nearest);
        const wave = Math.sin(1.9 * x) * Math.sin(1.9 * z) * sharp;
        const tile = 0.5 + 0.5 * (wave / Math.sqrt(1 + wave * wave)) * Math.min(1, 14 / nearest);
        cr = 0.025 + 0.26 * tile;
        cg = 0.03 + 0.25 * tile;
        cb = 0.045 + 0.25 * tile;
        mirror = 0.16;
        haze = 1 - Math.exp(-0.0006 * nearest * nearest);
      } else {
        const at = hit * FIELDS;
        const radius = balls[at + 3];
        nx = (x - balls[at]) / radius;
        ny = (y - balls[at + 1]) / radius;
        nz = (z - balls[at + 2]) / radius;
        cr = balls[at + 4];
        cg = balls[at + 5];
        cb = balls[at + 6];
        mirror = balls[at + 7];
      }
      const facing = -(dx * nx + dy * ny + dz * nz);
      mirror += (1 - mirror) * 0.75 * (1 - Math.min(1, Math.max(0, facing))) ** 5;

      const slope = nx * SUN[0] + ny * SUN[1] + nz * SUN[2];
      const sun = slope > 0 ? sunlight(x, y, z, hit) : 0;
      const open = openness(x, y, z, nx, ny, nz, hit);
      const skylight = open * (0.6 + 0.4 * ny);
      const fill = open * (0.5 - 0.5 * ny) * 0.22;
      const direct = sun * Math.max(0, slope);
      const keep = weight * (1 - haze);
      const body = keep * (1 - mirror);
      r += body * cr * (direct * SUN_COLOUR[0] + skylight * 0.3 + fill * 0.9) + weight * haze * (0.56 + 0.5 * glow);
      g += body * cg * (direct * SUN_COLOUR[1] + skylight * 0.36 + fill * 0.7) + weight * haze * (0.29 + 0.25 * glow);
      b += body * cb * (direct * SUN_COLOUR[2] + skylight * 0.55 + fill * 0.6) + weight * haze * (0.29 + 0.08 * glow);

      dx += 2 * facing * nx;
      dy += 2 * facing * ny;
      dz += 2 * facing * nz;
      if (hit !== FLOOR && sun > 0) {
        const shine = Math.max(0, dx * SUN[0] + dy * SUN[1] + dz * SUN[2]) ** 90 * sun * 1.6;
        r += keep * shine;
        g += keep * shine * 0.85;
        b += keep * shine * 0.65;
      }
      weight = keep * mirror;
      if (bounce === MAX_BOUNCES || weight < 0.01) break;
      ox = x;
      oy = y;
      oz = z;
      self = hit;
    }
    red = r;
    green = g;
    blue = b;
  }

  function look(px, py) {
    const sx = (2 * px - width) / height;
    const sy = (height - 2 * py) / height;
    const x = forward[0] * zoom + right[0] * sx + up[0] * sy;
    const y = forward[1] * zoom + right[1] * sx + up[1] * sy;
    const z = forward[2] * zoom + right[2] * sx + up[2] * sy;
    const length = Math.sqrt(x * x + y * y + z * z);
    trace(eye[0], eye[1], eye[2], x / length, y / length, z / length);
    red = film(red);
    green = film(green);
    blue = film(blue);
  }

  // One ray a pixel; where the neighbours differ, four more.
  const pixels = width * height;
  const surfaces = new Int8Array(pixels);
  const sums = new Float32Array(3 * pixels);
  for (let y = 0, pixel = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, pixel += 1) {
      look(x + 0.5, y + 0.5);
      surfaces[pixel] = surface;
      sums[3 * pixel] = red;
      sums[3 * pixel + 1] = green;
      sums[3 * pixel + 2] = blue;
    }
  }
  for (let y = 0, pixel = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, pixel += 1) {
      let r = sums[3 * pixel];
      let g = sums[3 * pixel + 1];
      let b = sums[3 * pixel + 2];
      if (isEdge(surfaces, sums, pixel, x, y, width, height)) {
        for (let corner = 0; corner < 4; corner += 1) {
          look(x + 0.25 + 0.5 * (corner & 1), y + 0.25 + 0.5 * (corner >> 1));
          r += red;
          g += green;
          b += blue;
        }
        r /= 5;
        g /= 5;
        b /= 5;
      }
      out[3 * pixel] = 255 * r + 0.5;
      out[3 * pixel + 1] = 255 * g + 0.5;
      out[3 * pixel + 2] = 255 * b + 0.5;
    }
  }
}

/** From light to the brightness on a screen, bright light rolled off. */
function film(light) {
  const bright = 1.05 * light;
  return Math.min(1, Math.sqrt((bright * (2.51 * bright + 0.03)) / (bright * (2.43 * bright + 0.59) + 0.14)));
}

function isEdge(surfaces, sums, pixel, x, y, width, height) {
  return (
    (x + 1 < width && differ(surfaces, sums, pixel, pixel + 1)) || (y + 1 < height && differ(surfaces, sums, pixel, pixel + width)) ||
    (x > 0 && differ(surfaces, sums, pixel, pixel - 1)) || (y > 0 && differ(surfaces, sums, pixel, pixel - width))
  );
}

function differ(surfaces, sums, one, other) {
  if (surfaces[one] !== surfaces[other]) return true;
  return Math.abs(sums[3 * one] - sums[3 * other]) + Math.abs(sums[3 * one + 1] - sums[3 * other + 1]) + Math.abs(sums[3 * one + 2] - sums[3 * other + 2]) > 0.18;
}
