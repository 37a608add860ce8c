// Resize and crop as Pillow and timm do, on uint8 pixels: a canvas resizes otherwise in each browser.
// Filters, coefficients and rounding are those of Pillow's Resample.c.

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

function cubic(x) {
  const a = -0.5, t = Math.abs(x);
  if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  return t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
}

const FILTERS = { // half width in pixels, and value at x
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  bicubic: [2, cubic],
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  hamming: [1, (x) => (Math.abs(x) < 1 ? sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)) : 0)],
  lanczos: [3, (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0)],
};
const ONE = 2 ** 22; // coefficients are integers with this unit

// Return where each output pixel's window starts, and its coefficients.
function coefficients(from, to, [half, value]) {
  const scale = from / to, wide = Math.max(scale, 1), support = half * wide;
  const windows = [];
  for (let i = 0; i < to; i++) {
    const centre = (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(from, Math.trunc(centre + support + 0.5));
    const weights = [];
    for (let x = start; x < end; x++) weights.push(value((x - centre + 0.5) / wide));
    const sum = weights.reduce((a, b) => a + b, 0);
    windows.push([start, weights.map((w) => { const k = (w / sum) * ONE; return Math.trunc(k + (k < 0 ? -0.5 : 0.5)); })]);
  }
  return windows;
}

// Return `pixels`, 3 bytes each, with every line of `from` of them resized to `to`. `step` and `line` are strides.
function resizeLines(pixels, out, windows, lines, [step, line], [outStep, outLine]) {
  for (let n = 0; n < lines; n++) {
    for (let i = 0; i < windows.length; i++) {
      const [start, weights] = windows[i];
      let r = ONE / 2, g = ONE / 2, b = ONE / 2;
      for (let k = 0, at = n * line + start * step; k < weights.length; k++, at += step) {
        const w = weights[k];
        r += pixels[at] * w; g += pixels[at + 1] * w; b += pixels[at + 2] * w;
      }
      const to = n * outLine + i * outStep;
      out[to] = Math.floor(r / ONE); out[to + 1] = Math.floor(g / ONE); out[to + 2] = Math.floor(b / ONE); // clamped
    }
  }
}

// Return which of `from` pixels is nearest to each of `to`; summed up as Pillow does it, which decides ties.
function places(from, to) {
  const step = from / to, found = [];
  for (let i = 0, at = step / 2; i < to; i++, at += step) found.push(Math.min(Math.trunc(at), from - 1));
  return found;
}

function nearest({ width, height, pixels }, w, h) {
  const out = new Uint8ClampedArray(3 * w * h), columns = places(width, w);
  places(height, h).forEach((row, y) => {
    columns.forEach((column, x) => {
      const at = 3 * (row * width + column);
      out.set(pixels.subarray(at, at + 3), 3 * (y * w + x));
    });
  });
  return { width: w, height: h, pixels: out };
}

// Return an RGB image {width, height, pixels} resized to w x h.
export function resize(image, w, h, interpolation) {
  if (interpolation === "nearest") return nearest(image, w, h);
  const filter = FILTERS[interpolation];
  let { width, height, pixels } = image;
  if (w !== width) {
    const out = new Uint8ClampedArray(3 * w * height);
    resizeLines(pixels, out, coefficients(width, w, filter), height, [3, 3 * width], [3, 3 * w]);
    pixels = out; width = w;
  }
  if (h !== height) {
    const out = new Uint8ClampedArray(3 * w * h);
    resizeLines(pixels, out, coefficients(height, h, filter), w, [3 * w, 3], [3 * w, 3]);
    pixels = out; height = h;
  }
  return { width, height, pixels };
}

function roundHalfToEven(x) { // as Python does
  const low = Math.floor(x);
  return x - low === 0.5 ? low + (low % 2) : Math.round(x);
}

// Return the width and height before the crop; `p` is the preprocessing record of the run.
export function scaledSize(width, height, p) {
  const [, cropHeight, cropWidth] = p.input_size;
  const h = Math.floor(cropHeight / p.crop_pct), w = Math.floor(cropWidth / p.crop_pct);
  if (p.crop_mode === "squash") return [w, h];
  if (p.crop_mode === "center" && h === w) {
    const long = Math.trunc((h * Math.max(width, height)) / Math.min(width, height));
    return width <= height ? [h, long] : [long, h];
  }
  const ratios = [height / h, width / w];
  const ratio = p.crop_mode === "center" ? Math.min(...ratios) : Math.max(...ratios);
  return [Math.max(1, roundHalfToEven(width / ratio)), Math.max(1, roundHalfToEven(height / ratio))];
}

// Return the network's input, planes of red, green and blue (Uint8Array), and the cropped image as RGB.
export function prepare(image, p) {
  const [, height, width] = p.input_size;
  const scaled = resize(image, ...scaledSize(image.width, image.height, p), p.interpolation);
  const lacks = [Math.max(0, width - scaled.width), Math.max(0, height - scaled.height)];
  const left = roundHalfToEven((scaled.width + lacks[0] - width) / 2) - Math.floor(lacks[0] / 2);
  const top = roundHalfToEven((scaled.height + lacks[1] - height) / 2) - Math.floor(lacks[1] / 2);
  const fill = p.crop_mode === "border" ? p.mean.map((m) => roundHalfToEven(255 * m)) : [0, 0, 0];
  const planes = new Uint8Array(3 * height * width);
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const row = y + top, column = x + left;
        const inside = row >= 0 && row < scaled.height && column >= 0 && column < scaled.width;
        planes[(c * height + y) * width + x] = inside ? scaled.pixels[3 * (row * scaled.width + column) + c] : fill[c];
      }
    }
  }
  return planes;
}
