// Classify a chosen, dropped or pasted image; nothing leaves this computer.
import { prepare } from "./resize.js";

const MOST_BYTES = 50e6, LISTED = 5;
const $ = (id) => document.getElementById(id);
let about, session, ort, latest = 0;

function show(message, isError = false) {
  $("message").textContent = message;
  $("message").className = isError ? "error" : "";
}

async function start() {
  const response = await fetch("model.json");
  about = await response.json();
  document.title = `Classify an image: ${about.backbone}`;
  const names = Object.entries(about.heads).map(([name, head]) => (head.classes.length ? `${name} (${head.classes.length} classes)` : name));
  $("about").textContent = `${about.backbone}; predicts ${names.join(", ")}. The image stays on this computer.`;
  try {
    ort = await import("./ort/ort.wasm.min.mjs");
  } catch {
    throw new Error("onnxruntime-web is missing: put its dist/ files into ort/, as README.txt says");
  }
  ort.env.wasm.numThreads = 1; // threads need the headers COOP and COEP, which plain servers do not send
  ort.env.wasm.wasmPaths = new URL("./ort/", location.href).href;
  session = await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] });
  $("file").disabled = false;
  show("ready");
}

// Return the pixels of an image file as RGB, upright, transparency on white, without colour management.
export async function decode(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const pixels = new Uint8ClampedArray(3 * width * height);
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += 3) {
    pixels[to] = rgba[from]; pixels[to + 1] = rgba[from + 1]; pixels[to + 2] = rgba[from + 2];
  }
  return { width, height, pixels };
}

// Return the outputs of the model for a prepared image, by name, as arrays.
export async function run(planes) {
  const input = new ort.Tensor("uint8", planes, [1, ...about.input.shape.slice(1)]);
  const outputs = await session.run({ images: input });
  return Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, Array.from(tensor.data, Number)]));
}

// Return the probabilities of all classes: a head of two classes may have that of the second alone.
function probabilities(outputs, name, classes) {
  const given = outputs[`${name}_probabilities`];
  return given.length === 1 && classes.length === 2 ? [1 - given[0], given[0]] : given;
}

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  text.split("_").forEach((part, k) => made.append(...(k ? ["_", document.createElement("wbr"), part] : [part]))); // long names break there
  made.className = className;
  return made;
}

function showHead(name, head, outputs) {
  const section = element("section");
  if (!head.classes.length) {
    section.append(element("h2", name), element("p", outputs[`${name}_value`][0].toPrecision(4), "answer"));
    return section;
  }
  const values = probabilities(outputs, name, head.classes), labels = outputs[`${name}_labels`], set = outputs[`${name}_set`];
  const order = values.map((_, i) => i).sort((a, b) => values[b] - values[a]);
  const answer = labels ? head.classes.filter((_, i) => labels[i]).join(", ") || "none" : head.classes[order[0]];
  section.append(element("h2", name), element("p", answer, "answer"));
  const list = element("ol");
  for (const i of order.slice(0, LISTED)) {
    const row = element("li"), bar = element("progress");
    bar.max = 1; bar.value = values[i]; bar.setAttribute("aria-hidden", "true");
    row.append(element("span", head.classes[i]), bar, element("b", `${(100 * values[i]).toFixed(1)} %`));
    list.append(row);
  }
  section.append(list);
  if (set) {
    const inside = order.filter((i) => set[i]).map((i) => head.classes[i]);
    section.append(element("p", `Prediction set (${100 * about.prediction_sets.coverage} %): ${inside.join(", ")}`, "soft"));
  }
  return section;
}

export async function classify(file) {
  return run(prepare(await decode(file), about.preprocessing));
}

async function take(file) {
  if (!session || !file) return;
  const turn = ++latest;
  $("answers").replaceChildren();
  if (file.size > MOST_BYTES) return show(`${file.name}: larger than ${MOST_BYTES / 1e6} MB`, true);
  show(`classifying ${file.name || "the image"} …`);
  URL.revokeObjectURL($("picture").src);
  $("picture").src = URL.createObjectURL(file);
  $("picture").hidden = false;
  await new Promise((done) => setTimeout(done, 0)); // the picture shows first
  try {
    const started = performance.now();
    const outputs = await classify(file);
    if (turn !== latest) return;
    const sections = Object.entries(about.heads).map(([name, head]) => showHead(name, head, outputs));
    const unknown = outputs.object_unknown;
    if (unknown) sections.push(element("p", `Stranger than ${(100 * unknown[0]).toFixed(0)} % of known images.`, "soft"));
    $("answers").replaceChildren(...sections);
    show(`classified ${file.name || "the image"} in ${Math.round(performance.now() - started)} ms`);
  } catch (error) {
    if (turn !== latest) return;
    $("picture").hidden = true;
    const unreadable = error instanceof DOMException;
    show(unreadable ? `${file.name || "the image"}: this browser cannot read it as an image` : `${file.name}: ${error.message}`, true);
  }
}

$("file").addEventListener("change", (event) => { take(event.target.files[0]); event.target.value = ""; });
document.addEventListener("paste", (event) => take([...event.clipboardData.files][0]));
for (const name of ["dragover", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", name === "dragover");
    if (name === "drop") take(event.dataTransfer.files[0]);
  });
}
document.addEventListener("dragleave", () => document.body.classList.remove("over"));
start().catch((error) => show(error.message, true));
