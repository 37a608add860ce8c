"use strict";
// Draw what is known. Every name is written as text, never as HTML.
const $ = (id) => document.getElementById(id);
const percent = (share) => (share > 0 && share < 0.005 ? "< 1 %" : share >= 0.9995 ? "100 %" : share > 0.995 ? `${(100 * share).toFixed(1)} %` : `${Math.round(100 * share)} %`).replaceAll(" ", "\u00a0");

function make(name, content, properties) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties || {})) {
    if (key in element) element[key] = value; else element.setAttribute(key, value);
  }
  element.append(...[content].flat().filter((part) => part !== undefined && part !== null));
  return element;
}

// A long name may break after an underscore.
function breakable(text) { return (text.match(/[^_]*_|[^_]+/g) || []).flatMap((part, k) => k ? [document.createElement("wbr"), part] : [part]); }

function chip(text, key, act) {
  const button = make("button", key ? [make("kbd", key), text] : [text], {type: "button"});
  button.addEventListener("click", act);
  return button;
}

function describeRun(run) {
  const heads = Object.entries(run.heads).map(([name, head]) => head.classes.length ? `${head.classes.length} ${name} classes` : name);
  const tested = Object.entries(run.test).filter(([, report]) => report.accuracy !== undefined)
    .map(([name, report]) => `${name} ${percent(report.accuracy)} right on ${report.n} test images`);
  return [run.backbone, ...heads, ...tested].join(" · ");
}

// The answer of the main head in words: [text, detail, whether it is unsure].
function verdict(prediction, run) {
  const main = run.main, answer = prediction[main], top = prediction[`${main}_top`];
  if (Array.isArray(answer)) return [answer.join(", ") || "nothing", "", false];
  if (typeof answer === "number") return [String(Number(answer.toPrecision(5))), "", false];
  if (answer === null || answer === undefined) {
    const close = top ? `; the closest class is ${top[0][0]}, ${percent(top[0][1])}` : "";
    const strange = prediction[`${main}_unknown`];
    return ["I don't know", `${describeStrangeness(strange)}${close}.`, true];
  }
  return [answer, percent(prediction[`${main}_probability`]), false];
}

function describeStrangeness(share) { return share >= 1 ? "Stranger than all known images" : `Stranger than ${percent(share)} of known images`; }

function describeSet(prediction, run) {
  const set = prediction[`${run.main}_set`];
  if (!run.coverage) return "This run has no prediction sets: it was trained without validation images.";
  if (!set) return "";
  const often = `in ${percent(run.coverage)} of cases`;
  return set.length > 1 ? `It may be any of ${set.length} classes (●): one of them is right ${often}.` : `It alone comes into question, if one is to be right ${often}.`;
}

function drawBars(prediction, name) {
  const set = new Set(prediction[`${name}_set`] || []);
  return make("ul", (prediction[`${name}_top`] || []).map(([label, share]) => {
    const bar = make("i"); bar.style.width = `${100 * share}%`;
    const item = make("li", [make("b", breakable(label)), make("span", bar, {className: "track", "aria-hidden": "true"}), make("span", percent(share), {className: "share"})]);
    item.className = set.has(label) ? "in" : "";
    return item;
  }), {className: "bars"});
}

function drawAnswer(found, run, several) {
  const prediction = found.prediction, [text, detail, unsure] = verdict(prediction, run);
  const parts = several ? [make("p", run.name, {className: "run"})] : [];
  const heading = make("p", unsure || !detail ? breakable(text) : [...breakable(text), " ", make("small", detail)], {className: `verdict${unsure ? " unsure" : ""}`});
  parts.push(heading);
  if (unsure) parts.push(make("p", detail, {className: "soft"}));
  if (prediction[`${run.main}_top`] && !unsure) parts.push(make("p", describeSet(prediction, run), {className: "soft"}));
  if (prediction[`${run.main}_top`]) parts.push(drawBars(prediction, run.main));
  const unknown = prediction[`${run.main}_unknown`];
  if (!unsure && unknown !== undefined) parts.push(make("p", `${describeStrangeness(unknown)}.`, {className: "soft"}));
  for (const name of Object.keys(run.heads).filter((each) => each !== run.main)) {
    const value = prediction[name];
    const shown = Array.isArray(value) ? value.join(", ") || "none" : String(value);
    parts.push(make("h3", prediction[`${name}_top`] ? name : `${name}: ${shown}`));
    if (prediction[`${name}_top`]) parts.push(drawBars(prediction, name));
  }
  return make("article", parts, {className: "answer", "aria-label": several ? run.name : "Answer"});
}

// The heat map lies over the part of the picture that the network sees.
function drawHeat(explanation) {
  const image = $("image"), canvas = $("heat");
  canvas.hidden = !explanation;
  if (!explanation) return;
  const box = image.getBoundingClientRect(), around = $("stage").getBoundingClientRect();
  canvas.width = Math.max(1, Math.round(box.width)); canvas.height = Math.max(1, Math.round(box.height));
  canvas.style.left = `${box.left - around.left}px`; canvas.style.top = `${box.top - around.top}px`;
  const rows = explanation.heat, small = document.createElement("canvas");
  small.width = rows[0].length; small.height = rows.length;
  const pixels = small.getContext("2d").createImageData(small.width, small.height);
  rows.flat().forEach((value, k) => pixels.data.set([255, Math.round(190 * (1 - value)), 0, Math.round(190 * value)], 4 * k));
  small.getContext("2d").putImageData(pixels, 0, 0);
  const [left, top, width, height] = explanation.view, pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.fillStyle = "rgb(0 0 0 / 0.35)";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  const place = [left * canvas.width, top * canvas.height, width * canvas.width, height * canvas.height];
  pen.clearRect(...place);
  pen.drawImage(small, ...place);
}

function drawThree(found, run) {
  return make("div", found.map((each) => {
    const labels = Object.values(each.labels).join(", ") || "no label";
    const shown = each.picture ? make("img", [], {src: `training/${run}/${each.row}`, alt: `training image: ${labels}`, loading: "lazy"})
      : "The image file is gone, or has changed.";
    const words = each.same ? "the same file" : `similarity ${each.similarity.toFixed(2)}`;
    return make("figure", [make("div", shown, {className: "shown"}), make("figcaption", [make("b", labels), make("br"), words])]);
  }), {className: "three"});
}

// Returns whether there is more to come.
function drawNeighbours(found, runs) {
  const groups = [];
  let loading = false;
  found.forEach((neighbours, number) => {
    if (!neighbours) return;
    const where = runs.length > 1 ? `${runs[number].name}: ` : "", {state, images, of, lost, problem} = neighbours.index;
    loading = loading || state === "loading";
    if (state === "missing") groups.push(make("p", `${where}not shown: ${problem}.`, {className: "soft"}));
    else if (state === "loading") groups.push(make("p", `${where}reading the training images, ${images} of ${of} …`, {className: "soft"}));
    else {
      const note = lost ? ` (${lost} of ${of} training images are gone or have changed)` : "";
      groups.push(make("div", [make("h4", `${where}nearest${note}`), drawThree(neighbours.nearest, number)]));
      if (neighbours.next) groups.push(make("div", [make("h4", `${where}nearest of the class ${neighbours.next.label}`), drawThree(neighbours.next.nearest, number)]));
    }
  });
  $("alike-groups").replaceChildren(...groups);
  return loading;
}

function drawCard(item, run, chosen, act) {
  let text = "waiting …", detail = "", kind = "";
  if (item.error) [text, detail, kind] = ["not read", item.error, "bad"];
  else if (item.found[0]) {
    const [answer, more, unsure] = verdict(item.found[0].prediction, run);
    [text, detail, kind] = [answer, unsure ? "" : more, unsure ? "unsure" : ""];
  }
  if (item.corrected) detail = `corrected: ${item.corrected}`;
  const picture = item.thumbnail ? make("img", [], {src: item.thumbnail, alt: ""}) : make("span", [], {className: "blank"});
  const words = make("span", [make("b", breakable(text)), detail || " ", make("small", item.name)], {className: kind});
  const button = make("button", [picture, words], {type: "button", title: item.name});
  button.setAttribute("aria-label", [item.name, text, detail].filter(Boolean).join(", "));
  if (chosen) button.setAttribute("aria-current", "true");
  button.addEventListener("click", act);
  return make("li", button);
}

function drawCorrections(listed, undo) {
  $("stored").hidden = !listed.length;
  $("corrections").replaceChildren(...listed.map((each) => {
    const button = chip("undo", "", () => undo(each));
    button.setAttribute("aria-label", `undo the correction to ${each.label}`);
    const when = new Date(each.when).toLocaleString();
    return make("li", [
      make("img", [], {src: `corrections/${each.id}`, alt: `corrected to ${each.label}`, loading: "lazy"}),
      make("div", [make("b", inDomain(each)), make("small", each.predicted ? each.predicted === each.label ? "as predicted" : `predicted: ${each.predicted}` : "not known before"), make("small", when)]),
      button,
    ]);
  }));
}
