// What the page does: send images, show one, correct it, sort and save all.
const AT_ONCE = 3, SHOWN = 5, THUMBNAIL = 240;
let about = null, items = [], chosen = null, listed = [], why = false, sending = 0, number = 0, shownLabels = [];
let busy = 0;  // requests whose end changes the page

function say(text) { $("message").textContent = text; }
function complain(text) { $("problem").textContent = text; }
const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

// Ask the server; where it is busy, again when it says.
async function ask(address, body) {
  busy += 1;
  try {
    for (let tries = 0; ; tries += 1) {
      const response = await fetch(address, body === undefined ? {} : {method: "POST", body});
      if (response.status === 503 && tries < 60) { await pause(Number(response.headers.get("Retry-After")) || 1); continue; }
      const answer = await response.json();
      if (!response.ok && response.status !== 409) throw new Error(answer.error || `the server says ${response.status}`);
      return answer;
    }
  } catch (error) {
    if (error instanceof TypeError) throw new Error("the server does not answer: is it still running?");
    throw error;
  } finally { busy -= 1; }
}

const query = (values) => new URLSearchParams(values).toString();
const explained = (item) => item.found.every((found) => found && found.neighbours);

async function predict(item, whole) {
  const options = whole ? {explain: "true", neighbours: "true"} : {};
  for (let run = 0; run < about.runs.length; run += 1) {
    item.found[run] = await ask(`predict?${query({name: item.name, run, top: SHOWN, ...options})}`, item.file);
  }
}

async function makeThumbnail(item) {
  try {
    const bitmap = await createImageBitmap(item.file), scale = Math.min(1, THUMBNAIL / Math.max(bitmap.width, bitmap.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(bitmap.width * scale)); canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.85));
    item.thumbnail = URL.createObjectURL(blob);
  } catch {  // a format that this browser does not show, such as HEIC
    const response = await fetch("picture", {method: "POST", body: item.file});
    if (!response.ok) return;
    item.shown = item.thumbnail = URL.createObjectURL(await response.blob());
  }
}

// Send images that wait, a few at a time.
async function send() {
  while (sending < AT_ONCE) {
    const item = items.find((each) => each.state === "waiting");
    if (!item) return;
    item.state = "sent"; sending += 1;
    (async () => {
      try {
        await predict(item, item === chosen);
        await makeThumbnail(item);
        markCorrected();
      } catch (error) { item.error = error.message; }
      item.state = "done"; sending -= 1;
      showGallerySoon();
      if (item === chosen) show();
      if (!items.some((each) => each.state !== "done")) say(summary());
      else say(`${items.filter((each) => each.state === "done").length} of ${items.length} images predicted …`);
      send();
    })();
  }
}

function summary() {
  const good = items.filter((item) => !item.error), bad = items.length - good.length;
  if (items.length === 1 && good.length) return `${good[0].name}: ${verdict(good[0].found[0].prediction, about.runs[0]).slice(0, 2).filter(Boolean).join(" ")}`;
  return `${good.length} image${good.length === 1 ? "" : "s"} predicted${bad ? `, ${bad} not read` : ""}.`;
}

function add(files) {
  const added = [...files].map((file) => ({id: number++, file, name: file.name || "pasted image", state: "waiting", found: [], error: "", thumbnail: "", shown: "", corrected: ""}));
  if (!added.length) return;
  complain("");
  items.push(...added);
  say(`${added.length} image${added.length === 1 ? "" : "s"} …`);
  choose(added[0]);
  showGallery();
  send();
}

function ordered() {
  const doubt = (item) => item.error ? 2 : item.state !== "done" ? -1 : item.found[0].prediction.doubt ?? 0;
  return $("order").value === "doubt" ? [...items].sort((a, b) => doubt(b) - doubt(a) || a.id - b.id) : items;
}

function showGallery() {
  $("gallery").hidden = items.length < 2 && !items.some((item) => item.error);
  $("count").textContent = items.length > 1 ? `${items.length} images` : "";
  const focused = document.activeElement && document.activeElement.closest("#cards li");
  const place = focused ? [...$("cards").children].indexOf(focused) : -1;
  $("cards").replaceChildren(...ordered().map((item) => drawCard(item, about.runs[0], item === chosen, () => { choose(item); scrollUp(); })));
  if (place >= 0 && $("cards").children[place]) $("cards").children[place].firstChild.focus();
}

// While many images come in, all cards are drawn a few times a second, not once for each image.
let drawing = 0;
function showGallerySoon() { drawing ||= setTimeout(() => { drawing = 0; showGallery(); }, items.length > 40 ? 400 : 30); }

function scrollUp() { $("detail").scrollIntoView({block: "start"}); }

function choose(item) {
  chosen = item;
  $("label").value = "";
  $("domain").value = item.domain || "";
  show();
  for (const [k, card] of [...$("cards").children].entries()) {
    if (ordered()[k] === item) card.firstChild.setAttribute("aria-current", "true"); else card.firstChild.removeAttribute("aria-current");
  }
  if (item && item.state === "done" && !item.error && !explained(item)) complete(item);
}

// Ask for what only the shown image needs: the explanation and its neighbours.
async function complete(item) {
  try { await predict(item, true); } catch (error) { complain(error.message); return; }
  if (item === chosen) show();
}

function show() {
  const item = chosen;
  $("detail").hidden = !item;
  if (!item) return;
  if (!item.shown) item.shown = URL.createObjectURL(item.file);
  if ($("image").getAttribute("src") !== item.shown) $("image").src = item.shown;
  $("image").alt = item.name;
  $("name").textContent = item.name;
  const order = ordered(), place = order.indexOf(item);
  $("back").disabled = place <= 0; $("next").disabled = place >= order.length - 1;
  $("back").hidden = $("next").hidden = items.length < 2;
  const found = item.state === "done" && !item.error ? item.found : [];
  if (item.error) $("answers").replaceChildren(make("p", "Not read", {className: "verdict unsure"}), make("p", item.error));
  else if (!found.length) $("answers").replaceChildren(make("p", "predicting …", {className: "soft"}));
  else $("answers").replaceChildren(...found.map((each, run) => drawAnswer(each, about.runs[run], about.runs.length > 1)));
  showWhy();
  $("alike").hidden = !found.length || !found.some((each) => each.neighbours);
  if (!$("alike").hidden && drawNeighbours(found.map((each) => each.neighbours), about.runs)) {
    pause(2).then(() => { if (item === chosen) complete(item); });
  }
  showCorrection(found);
}

function showWhy() {
  const explanation = chosen && chosen.found[0] && chosen.found[0].explanation;
  const possible = chosen && chosen.state === "done" && !chosen.error;
  $("why").disabled = !explanation;
  $("why").setAttribute("aria-pressed", String(why && Boolean(explanation)));
  $("why").lastChild.textContent = why && explanation ? " Hide why" : " Show why";
  const runs = about.runs.length > 1 ? ` of ${about.runs[0].name}` : "";
  $("why-text").textContent = why && explanation ? `Red and yellow: the parts that speak for ${explanation.label} (Grad-CAM${runs}). Darkened: what the network does not see.`
    : possible && explained(chosen) && !explanation ? "This run's network has no maps of which Grad-CAM could show why." : "";
  drawHeat(why ? explanation : null);
}

function showCorrection(found) {
  $("correct").hidden = !found.length;
  if (!found.length) return;
  const run = about.runs[0], top = found[0].prediction[`${run.main}_top`] || [];
  $("correct-title").textContent = about.runs.length > 1 ? `Which class is it? (stored with ${run.name})` : "Which class is it?";
  $("corrected").textContent = chosen.corrected ? `Stored as ${chosen.corrected}.` : "";
  const domains = domainsOf(run);
  $("domain-row").hidden = !domains.length;
  $("domains").replaceChildren(...domains.map((name) => make("option", [], {value: name})));
  shownLabels = top.map(([label]) => label);
  $("likely").replaceChildren(...shownLabels.map((label, k) => chip(label, `${k + 1}`, () => correct(label))));
  suggest();
}

// The domains that the run predicts beside its classes; none if it does not.
const domainsOf = (run) => run.main !== "domain" && run.heads.domain ? run.heads.domain.classes : [];
const classes = () => [...new Set([...((about.runs[0].heads[about.runs[0].main] || {}).classes || []), ...listed.map((each) => each.label)])];

function matches() {
  const typed = $("label").value.trim().toLowerCase();
  if (!typed) return [];
  const names = classes().filter((name) => name.toLowerCase().includes(typed));
  return names.sort((a, b) => b.toLowerCase().startsWith(typed) - a.toLowerCase().startsWith(typed)).slice(0, 8);
}

function suggest() {
  const found = matches(), typed = $("label").value.trim().replace(/\s+/g, " ");
  const chips = found.map((name) => chip(name, "", () => correct(name)));
  if (typed && !classes().includes(typed)) chips.push(chip(`new class: ${typed}`, "", () => correct(typed)));
  for (const each of chips) each.setAttribute("role", "option");
  $("matches").replaceChildren(...chips);
  $("label").setAttribute("aria-expanded", String(chips.length > 0));
}

const inDomain = (each) => each.domain ? `${each.label} in ${each.domain}` : each.label;
const digestOf = (item) => item.found[0] && item.found[0].sha256;
const decisions = {};  // by image, how many this page knows of

function markCorrected() {
  for (const item of items) {
    const held = listed.find((each) => each.id === digestOf(item));
    item.corrected = held ? inDomain(held) : "";
    [item.label, item.domain] = held ? [held.label, held.domain] : ["", ""];
  }
}

function takeList(answer) {
  listed = answer.corrections;
  Object.assign(decisions, answer.decisions);
  markCorrected();
  drawCorrections(listed, undo);
}

async function correct(label) {
  const item = chosen, name = label.trim().replace(/\s+/g, " ");
  if (!item || item.state !== "done" || item.error || !name) return;
  complain("");
  const digest = digestOf(item), seen = decisions[digest] || 0, domain = $("domain").value.trim();
  try {
    const answer = await ask(`corrections?${query({label: name, name: item.name, seen, domain})}`, item.file);
    takeList(answer);
    if (answer.code === "behind") complain("This image was corrected in another tab: this is how it stands. Correct it again to change it.");
    else say(`Stored as ${name}${domain && ` in ${domain}`}. U takes it back.`);
  } catch (error) { complain(error.message); return; }
  $("label").value = ""; $("label").blur();
  show(); showGallery();
}

async function undo(each) {
  const last = each || listed[0];
  if (!last) { say("There is no correction to undo."); return; }
  complain("");
  try {
    const answer = await ask(`corrections/${last.id}/undo?${query({seen: last.seen})}`, "");
    takeList(answer);
    if (answer.code === "behind") complain("This image was corrected in another tab: this is how it stands.");
    else say(`The correction to ${last.label} is undone.`);
  } catch (error) {
    complain(error.message);
    takeList(await ask("corrections"));
  }
  show(); showGallery();
}

// A cell for a spreadsheet: one that begins like a formula is text there.
function cell(value) {
  const text = value === null || value === undefined ? "" : Array.isArray(value) ? value.map((each) => Array.isArray(each) ? each.join(" in ") : each).join("|") : String(value);
  const safe = typeof value !== "number" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function tabulate() {
  const several = about.runs.length > 1, columns = ["name"], rows = [];
  for (const item of ordered().filter((each) => each.state === "done")) {
    const row = {name: item.name, error: item.error, corrected: item.corrected};
    item.found.forEach((found) => {
      if (item.error) return;
      for (const [key, value] of Object.entries(found.prediction)) {
        if (key.endsWith("_top")) continue;
        const column = several ? `${found.run}: ${key}` : key;
        if (!columns.includes(column)) columns.push(column);
        row[column] = value;
      }
    });
    rows.push(row);
  }
  columns.push("corrected", "error");
  return [columns, ...rows.map((row) => columns.map((column) => row[column]))].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function saveCsv() {
  if (!items.length) return;
  const link = make("a", [], {href: URL.createObjectURL(new Blob(["\ufeff", tabulate()], {type: "text/csv"})), download: "predictions.csv"});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function clearAll() {
  for (const item of items) for (const url of [item.thumbnail, item.shown]) if (url) URL.revokeObjectURL(url);
  items = []; chosen = null;
  show(); showGallery(); say(""); complain("");
}

function move(step) {
  const order = ordered(), place = order.indexOf(chosen) + step;
  if (order[place]) choose(order[place]);
}

function toggleWhy() { why = !why; showWhy(); }
const images = (list) => [...(list || [])].filter((file) => file.type.startsWith("image/") || /\.(heic|heif|jpe?g|png|webp|tiff?|bmp|gif|avif)$/i.test(file.name));

for (const id of ["files", "camera"]) $(id).addEventListener("change", (event) => { add(event.target.files); event.target.value = ""; });
document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  const found = images(event.dataTransfer.files);
  if (found.length) add(found); else complain("These are no image files; folders cannot be dropped here.");
});
document.addEventListener("paste", (event) => {
  const found = images(event.clipboardData.files);
  if (found.length) { event.preventDefault(); add(found); }
  else if (![$("label"), $("domain")].includes(event.target)) complain("There is no image to paste.");
});
$("image").addEventListener("load", () => {
  $("image").classList.toggle("small", Math.max($("image").naturalWidth, $("image").naturalHeight) < 100);
  showWhy();
});
$("image").addEventListener("error", async () => {  // a format that this browser does not show
  const item = chosen;
  if (!item || item.pictured || item.error) return;
  item.pictured = true;
  const response = await fetch("picture", {method: "POST", body: item.file});
  if (response.ok) { item.shown = URL.createObjectURL(await response.blob()); if (item === chosen) show(); }
});
new ResizeObserver(showWhyAgain).observe($("stage"));
function showWhyAgain() { if (about && chosen) showWhy(); }
$("why").addEventListener("click", toggleWhy);
$("back").addEventListener("click", () => move(-1));
$("next").addEventListener("click", () => move(1));
$("order").addEventListener("change", () => { showGallery(); show(); });
$("export").addEventListener("click", saveCsv);
$("clear").addEventListener("click", clearAll);
$("help").addEventListener("click", () => $("keys").showModal());
$("label").addEventListener("input", suggest);
$("label").addEventListener("keydown", (event) => {
  event.stopPropagation();
  if (event.key === "Escape") { $("label").value = ""; $("label").blur(); suggest(); }
  if (event.key !== "Enter") return;
  event.preventDefault();
  const typed = $("label").value.trim(), name = event.shiftKey ? typed : matches()[0];
  if (name) correct(name);
  else if (typed) complain("No class has such a name: Shift+Enter makes it a new one.");
});
// The domain is stored with the class: at once where the image has one already.
$("domain").addEventListener("keydown", (event) => {
  event.stopPropagation();
  if (event.key === "Escape") { $("domain").value = ""; $("domain").blur(); }
  if (event.key !== "Enter") return;
  event.preventDefault();
  if (chosen && chosen.label) correct(chosen.label);
  else { $("domain").blur(); say("The domain is stored with the class: choose it now."); }
});
document.addEventListener("keydown", (event) => {
  if ($("keys").open || !about) return;
  if (event.ctrlKey && event.key === "z") { event.preventDefault(); undo(); return; }
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.tagName === "SELECT") return;
  const key = event.key.toLowerCase();
  const act = {
    arrowright: () => move(1), arrowleft: () => move(-1), g: toggleWhy, u: () => undo(), e: saveCsv, o: () => $("files").click(), "?": () => $("keys").showModal(),
    c: () => { $("label").scrollIntoView({block: "center"}); $("label").focus(); },
    d: () => { $("order").value = $("order").value === "doubt" ? "added" : "doubt"; showGallery(); show(); },
  }[key];
  if (act) { event.preventDefault(); act(); }
  else if (/^[1-9]$/.test(key) && shownLabels[key - 1] && !$("correct").hidden) correct(shownLabels[key - 1]);
});
Promise.all([ask("about"), ask("corrections")]).then(([state, corrections]) => {
  about = state;
  $("detail").classList.toggle("two", about.runs.length > 1);
  $("of-first").hidden = about.runs.length < 2;
  $("of-first").textContent = `Grad-CAM and corrections are those of the first run, ${about.runs[0].name}.`;
  $("about").textContent = about.runs.map((run) => about.runs.length > 1 ? `${run.name}: ${describeRun(run)}` : describeRun(run)).join("\n");
  $("command").textContent = corrections.command;
  takeList(corrections);
}).catch((error) => complain(error.message));
