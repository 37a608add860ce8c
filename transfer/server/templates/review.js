"use strict";
// Every name is written as text, never as HTML. Pictures are asked for by row number.
const $ = (id) => document.getElementById(id);
let state = null, at = 0, busy = false;
const history = [];  // rows that this tab decided on, the last one last

async function ask(address, body) {
  const options = body === undefined ? {} : {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)};
  const response = await fetch(address, options);
  const answer = await response.json();
  if (!response.ok && response.status !== 409) throw new Error(answer.error || `the server says ${response.status}`);
  return {answer, stored: response.ok};
}

function say(text) { $("message").textContent = text; }

function chip(text, detail, key, act) {
  const button = document.createElement("button");
  button.type = "button";
  if (key) { const kbd = document.createElement("kbd"); kbd.textContent = key; button.append(kbd); }
  button.append(text);
  if (detail) { const small = document.createElement("small"); small.textContent = detail; button.append(small); }
  button.addEventListener("click", act);
  return button;
}

const DECISIONS = {accept: "accepted", exclude: "excluded", "": ""};

function show() {
  const items = state.items, item = items[at];
  const done = items.filter((each) => each.decision).length;
  $("bar").max = Math.max(items.length, 1);
  $("bar").value = done;
  $("progress").textContent = `round ${state.round}: ${done} of ${items.length} decided`;
  for (const id of ["accept", "exclude", "undo", "back", "next", "name"]) $(id).disabled = !item;
  $("likely").replaceChildren();
  suggest();
  if (!item) {
    $("place").textContent = "Nothing to review";
    $("label").textContent = "No doubtful label is left.";
    for (const id of ["decision", "path"]) $(id).textContent = "";
    $("image").removeAttribute("src");
    return;
  }
  $("place").textContent = `${at + 1} / ${items.length}`;
  $("label").textContent = item.label || "no label";
  const changed = item.decision === "relabel" ? `was ${item.given || "without a label"}` : DECISIONS[item.decision];
  $("decision").textContent = changed || "";
  $("path").textContent = item.path;
  $("given").textContent = item.given || "no label";
  $("accept").disabled = !item.given;
  $("undo").disabled = !item.decision && !history.length;
  const address = `picture/${item.row}`;
  if ($("image").getAttribute("src") !== address) $("image").src = address;
  $("image").alt = item.label || "image";
  item.likely.forEach(([name, p], k) => {
    $("likely").append(chip(name, `${Math.round(100 * p)} %`, `${k + 1}`, () => decide("relabel", name)));
  });
  const ahead = items[at + 1];
  if (ahead) new Image().src = `picture/${ahead.row}`;
}

function matches() {
  const typed = $("name").value.trim().toLowerCase();
  if (!typed) return [];
  const names = state.classes.filter((name) => name.toLowerCase().includes(typed));
  return names.sort((a, b) => b.toLowerCase().startsWith(typed) - a.toLowerCase().startsWith(typed)).slice(0, 8);
}

function suggest() {
  const found = matches();
  $("matches").replaceChildren(...found.map((name) => chip(name, "", "", () => decide("relabel", name))));
  $("name").setAttribute("aria-expanded", String(found.length > 0));
}

function move(step) {
  at = Math.min(Math.max(at + step, 0), Math.max(state.items.length - 1, 0));
  show();
}

async function send(place, action, name) {
  const item = state.items[place];
  const {answer, stored} = await ask("decide", {row: item.row, action, new: name || "", seen: item.seen});
  state.items[place] = answer;
  if (name && !state.classes.includes(name)) state.classes.push(name);
  if (!stored) say("This image was decided in another tab: this is how it stands. Decide again to change it.");
  return stored;
}

async function once(work) {
  if (busy || !state) return;
  busy = true;
  say("");
  try { await work(); } catch (error) { say(error.message); } finally { busy = false; show(); }
}

function decide(action, name) {
  return once(async () => {
    const item = state.items[at];
    if (!item) return;
    const cleaned = (name || "").trim().replace(/\s+/g, " ");
    const same = action === "relabel" && cleaned === item.given ? "accept" : action;
    if (!await send(at, same, same === "relabel" ? cleaned : "")) return;
    history.push(item.row);
    $("name").value = "";
    $("name").blur();
    if (at + 1 < state.items.length) at += 1;
    else say("That was the last one: N starts the next round.");
  });
}

// The decision on this image, or else the last one of this tab; with `last` always that one.
function undo(last) {
  return once(async () => {
    let place = at;
    if (last || !state.items[at].decision) {
      const row = history.pop();
      place = state.items.findIndex((each) => each.row === row);
      if (place < 0) return;
    } else {
      const found = history.lastIndexOf(state.items[at].row);
      if (found >= 0) history.splice(found, 1);
    }
    at = place;
    await send(place, "undo");
  });
}

function rank() {
  return once(async () => {
    say("ranking …");
    state = (await ask("rank", {})).answer;
    at = 0;
    history.length = 0;
    say("");
  });
}

$("accept").addEventListener("click", () => decide("accept"));
$("exclude").addEventListener("click", () => decide("exclude"));
$("undo").addEventListener("click", () => undo(false));
$("back").addEventListener("click", () => move(-1));
$("next").addEventListener("click", () => move(1));
$("rank").addEventListener("click", rank);
$("name").addEventListener("input", suggest);
$("name").addEventListener("keydown", (event) => {
  event.stopPropagation();
  if (event.key === "Escape") { $("name").value = ""; $("name").blur(); suggest(); }
  if (event.key !== "Enter") return;
  event.preventDefault();
  const typed = $("name").value.trim(), first = event.shiftKey ? typed : matches()[0];
  if (first) decide("relabel", first);
  else if (typed) say("No class has such a name: Shift+Enter makes it a new one.");
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey && event.key === "z") { event.preventDefault(); undo(true); return; }
  if (event.ctrlKey || event.altKey || event.metaKey || !state) return;
  const item = state.items[at], key = event.key.toLowerCase();
  const act = {
    enter: () => decide("accept"), a: () => decide("accept"), x: () => decide("exclude"), u: () => undo(false), backspace: () => undo(false),
    arrowright: () => move(1), arrowleft: () => move(-1), n: rank, r: () => $("name").focus(), "/": () => $("name").focus(),
  }[key];
  if (key === "enter" && event.target.tagName === "BUTTON") return;  // the button's own key
  if (act) { event.preventDefault(); act(); }
  else if (item && /^[1-9]$/.test(key) && item.likely[key - 1]) decide("relabel", item.likely[key - 1][0]);
});
// A button that was clicked would take the next Enter; one that was reached by the Tab key shall.
document.addEventListener("click", (event) => {
  if (event.detail && document.activeElement.tagName === "BUTTON") document.activeElement.blur();
});
ask("state").then(({answer}) => {
  state = answer;
  const open = state.items.findIndex((each) => !each.decision);  // resume where the review stopped
  at = Math.max(open, 0);
  show();
}).catch((error) => say(error.message));
