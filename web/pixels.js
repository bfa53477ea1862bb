// What `manas_lite.derain` does around the network, on typed arrays. Planes are Float32Array, row by row, in [0, 1].

/** Return the integer nearest to x, of two equally near ones the even one, as Python's round does. */
export function round(x) {
  const nearest = Math.round(x);
  return nearest - x === 0.5 && nearest % 2 ? nearest - 1 : nearest;
}

/** Return the size at which the network looks. */
export function lookedAt(width, height, scale) {
  return [width, height].map((side) => Math.max(1, round(side * scale)));
}

/** Return channel c (0 to 2) of RGBA bytes as a plane. */
export function plane(rgba, c) {
  return Float32Array.from({ length: rgba.length / 4 }, (_, i) => rgba[4 * i + c] / 255);
}

/** Return a plane resized as torch's interpolate(mode="bicubic", antialias=True, align_corners=False) does. */
export function resize(source, width, height, newWidth, newHeight) {
  const across = weights(width, newWidth), down = weights(height, newHeight);
  const middle = new Float32Array(newWidth * height), result = new Float32Array(newWidth * newHeight);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < newWidth; x++) {
      const { first, share } = across[x];
      let sum = 0;
      for (let k = 0; k < share.length; k++) sum += share[k] * source[y * width + first + k];
      middle[y * newWidth + x] = sum;
    }
  for (let y = 0; y < newHeight; y++) {
    const { first, share } = down[y];
    for (let k = 0; k < share.length; k++)
      for (let x = 0; x < newWidth; x++) result[y * newWidth + x] += share[k] * middle[(first + k) * newWidth + x];
  }
  return result;
}

/** Return, for each new position, the first old one that it reads and the share of each from there on. */
function weights(length, newLength) {
  const ratio = length / newLength, stretch = Math.max(ratio, 1);
  return Array.from({ length: newLength }, (_, i) => {
    const centre = ratio * (i + 0.5);
    const first = Math.max(Math.trunc(centre - 2 * stretch + 0.5), 0);
    const end = Math.min(Math.trunc(centre + 2 * stretch + 0.5), length);
    const share = Array.from({ length: end - first }, (_, k) => cubic((first + k - centre + 0.5) / stretch));
    const sum = share.reduce((a, b) => a + b);
    return { first, share: share.map((value) => value / sum) };
  });
}

/** Keys' cubic convolution kernel with a = -0.5, which torch takes where it smooths. */
function cubic(x) {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

/** Return the tiles of a picture: each box that is written, and the wider one that the network reads for it. */
export function tiles(width, height, side, margin) {
  const spans = (length) => {
    const found = [];
    for (let start = 0; start < length; start += side) {
      const stop = Math.min(start + side, length);
      found.push({ start, stop, from: Math.max(0, start - margin), to: Math.min(stop + margin, length) });
    }
    return found;
  };
  return spans(height).flatMap((y) => spans(width).map((x) => ({ x, y })));
}

/** Write rainy + strength * (derained - rainy) into `into`; all three are RGBA bytes. They round and clamp themselves. */
export function blend(rainy, derained, strength, into) {
  for (let i = 0; i < rainy.length; i++) into[i] = rainy[i] + strength * (derained[i] - rainy[i]);
}

/** Return whether all pixels are grey. */
export function isGrey(rgba) {
  for (let i = 0; i < rgba.length; i += 4) if (rgba[i] !== rgba[i + 1] || rgba[i] !== rgba[i + 2]) return false;
  return true;
}
