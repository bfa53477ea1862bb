// The network, off the page's thread, so that the page stays alive. One thread: more need headers that static hosts lack.
import * as ort from "./ort.mjs";
import { isGrey, lookedAt, plane, resize, tiles } from "./pixels.js";

let loading, loaded; // the model's file, and its session
let rate = 0; // seconds per pixel

/** Return what a packed file holds. It is packed by us, since not every static host compresses; .bin is left alone. */
async function unpacked(file) {
  const answer = await fetch(file);
  if (!answer.ok) throw new Error(`${file}: ${answer.status}`);
  return new Uint8Array(await new Response(answer.body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
}

async function session(file) {
  if (loading !== file) {
    await loaded?.release();
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary ??= (await unpacked("ort.wasm.bin")).buffer;
    loaded = await ort.InferenceSession.create(await unpacked(file), { executionProviders: ["wasm"] });
    loading = file;
    rate = 0;
  }
  return loaded;
}

async function network(net, data, width, height) {
  const input = new ort.Tensor("float32", data, [1, 3, height, width]);
  const { derained } = await net.run({ rainy: input });
  input.dispose();
  return derained.data;
}

/** Return what the network takes three planes to, tile by tile. */
async function derain(net, planes, width, height, { side, margin }) {
  const boxes = tiles(width, height, side || Math.max(width, height), margin);
  const result = planes.map((values) => new Float32Array(values.length));
  for (const [done, { x, y }] of boxes.entries()) {
    const w = x.to - x.from, h = y.to - y.from;
    postMessage({ progress: done, of: boxes.length, seconds: rate * w * h });
    const data = new Float32Array(3 * w * h);
    planes.forEach((values, c) => {
      for (let row = 0; row < h; row++) {
        const start = (y.from + row) * width;
        data.set(values.subarray(start + x.from, start + x.to), (c * h + row) * w);
      }
    });
    const began = performance.now();
    const out = await network(net, data, w, h);
    rate = (performance.now() - began) / 1000 / (w * h);
    result.forEach((values, c) => {
      for (let row = y.start; row < y.stop; row++) {
        const start = (c * h + row - y.from) * w - x.from;
        values.set(out.subarray(start + x.start, start + x.stop), row * width + x.start);
      }
    });
  }
  return result;
}

/** Return RGBA bytes derained, as `manas_lite.derain(picture, scale=scale)` does it. */
async function picture(net, { rgba, width, height, scale, tile }) {
  const [w, h] = lookedAt(width, height, scale), whole = scale === 1;
  const small = [0, 1, 2].map((c) => {
    const full = plane(rgba, c);
    return whole ? full : resize(full, width, height, w, h).map((value) => Math.min(Math.max(value, 0), 1));
  });
  const out = await derain(net, small, w, h, tile);
  const result = new Uint8ClampedArray(rgba.length).fill(255);
  for (let c = 0; c < 3; c++) {
    if (whole) {
      for (let i = 0; i < out[c].length; i++) result[4 * i + c] = 255 * out[c][i];
    } else {
      const change = resize(out[c].map((value, i) => value - small[c][i]), w, h, width, height);
      for (let i = 0; i < change.length; i++) result[4 * i + c] = rgba[4 * i + c] + 255 * change[i];
    }
  }
  if (isGrey(rgba)) // the three channels are derained apart and averaged: grey stays grey
    for (let i = 0; i < result.length; i += 4)
      result[i] = result[i + 1] = result[i + 2] = (result[i] + result[i + 1] + result[i + 2]) / 3;
  return result;
}

self.onmessage = async ({ data: job }) => {
  let step = "load";
  try {
    const net = await session(job.file);
    step = "run";
    if (!rate) {
      await network(net, new Float32Array(3 * 64 * 64), 64, 64); // the first pass also prepares the network
      const began = performance.now();
      await network(net, new Float32Array(3 * 128 * 128), 128, 128);
      rate = (performance.now() - began) / 1000 / 128 ** 2;
    }
    const result = await picture(net, job);
    postMessage({ result }, [result.buffer]);
  } catch (error) {
    postMessage({ failed: step, why: String(error?.message ?? error) });
  }
};
