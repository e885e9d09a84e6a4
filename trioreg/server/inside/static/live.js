// Draws what /ui/events says, twice a second. Keeps two minutes of two lines and nothing else.
"use strict";

const POINTS = 240; // two minutes
const byId = (id) => document.getElementById(id);
const lines = { resident: [], received: [] };
let paused = false;

const UNITS = ["B", "kB", "MB", "GB", "TB"];

function size(bytes) {
  let unit = 0;
  while (bytes >= 1000 && unit < UNITS.length - 1) {
    bytes /= 1000;
    unit += 1;
  }
  return `${bytes.toFixed(unit && bytes < 100 ? 1 : 0)} ${UNITS[unit]}`;
}

function age(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function drawBudget(look) {
  const { total, held, waiting, block_size } = look.budget;
  const bar = byId("budget");
  bar.setAttribute("aria-valuemax", total);
  bar.setAttribute("aria-valuenow", held);
  for (const [stage, blocks] of Object.entries(look.stages)) {
    const part = byId(`in-${stage}`);
    part.style.width = `${total ? (100 * blocks) / total : 0}%`;
    part.toggleAttribute("data-blocks", blocks > 0);
    part.firstElementChild.textContent = blocks ? `${stage} ${blocks}` : "";
  }
  const text = `${held} of ${total} blocks held (${size(held * block_size)} of ${size(total * block_size)}), ` +
    `${waiting} uploads wait for a block`;
  byId("budget-text").textContent = text;
  bar.setAttribute("aria-valuetext", text);
}

function drawLine(name, value, show) {
  const line = lines[name];
  line.push(value);
  if (line.length > POINTS) line.shift();
  const top = Math.max(...line, 1) * 1.1;
  const points = line.map((each, at) => `${POINTS - line.length + at},${(60 - (58 * each) / top).toFixed(1)}`);
  byId(`${name}-line`).firstElementChild.setAttribute("points", points.join(" "));
  byId(`${name}-scale`).textContent = `0 to ${show(top)}`;
  byId(name).textContent = show(value);
}

function cell(row, at, text, kind) {
  const td = row.cells[at];
  if (td.textContent !== text) td.textContent = text;
  td.className = kind;
}

const stage = (word) => (word === "idle" || word === "ended" ? "idle" : word === "busy" ? "busy" : "waits");

function drawRow(row, upload) {
  cell(row, 0, upload.repository, "");
  cell(row, 1, upload.upload.slice(0, 8), "");
  const moving = upload.phase === "body";
  cell(row, 2, moving ? upload.receive : "–", moving ? stage(upload.receive) : "idle");
  cell(row, 3, moving ? upload.digest : "–", moving ? stage(upload.digest) : "idle");
  cell(row, 4, moving ? upload.write : "–", moving ? stage(upload.write) : "idle");
  cell(row, 5, upload.waits_for, "");
  cell(row, 6, size(upload.offset), "number");
  cell(row, 7, `${size(upload.bytes_per_second)}/s`, "number");
  cell(row, 8, String(upload.blocks), "number");
  cell(row, 9, age(upload.age_seconds), "number");
}

function drawUploads(look) {
  const body = byId("uploads");
  const rows = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  look.uploads.forEach((upload, at) => {
    // A second writer of a session, which waits for the first, has a row of its own.
    const nth = look.uploads.slice(0, at).filter((other) => other.upload === upload.upload).length;
    const key = `${upload.upload} ${nth}`;
    let row = rows.get(key);
    rows.delete(key);
    if (!row) {
      row = document.createElement("tr");
      row.dataset.key = key;
      row.tabIndex = -1;
      for (let column = 0; column < 10; column += 1) row.insertCell();
    }
    drawRow(row, upload);
    if (body.rows[at] !== row) body.insertBefore(row, body.rows[at] || null);
  });
  for (const gone of rows.values()) gone.remove();
  if (body.rows.length && ![...body.rows].some((row) => row.tabIndex === 0)) body.rows[0].tabIndex = 0;
  const all = Object.values(look.waits).reduce((sum, each) => sum + each, 0);
  byId("count").textContent = all;
  const waits = Object.entries(look.waits).filter(([, count]) => count);
  byId("waits").textContent = waits.map(([what, count]) => `${count} for ${what}`).join(", ");
  const more = all - look.uploads.length;
  byId("more").textContent = more > 0 ? `… and ${more} more` : "";
}

function draw(look) {
  const of = look.workers > 1 ? `, rows of worker ${look.worker + 1} of ${look.workers}` : "";
  byId("state").textContent =
    `${look.connections} connections, event loop at most ${(1000 * look.lag).toFixed(1)} ms late${of}`;
  drawBudget(look);
  drawLine("resident", look.resident, size);
  drawLine("received", look.received_per_second, (value) => `${size(value)}/s`);
  drawUploads(look);
}

function togglePause() {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", paused);
  if (paused) byId("state").textContent = "paused";
}

function moveFocus(event) {
  const rows = [...byId("uploads").rows];
  if (!rows.length) return;
  const at = rows.indexOf(document.activeElement);
  const to = { ArrowDown: Math.min(at + 1, rows.length - 1), ArrowUp: Math.max(at - 1, 0), Home: 0, End: rows.length - 1 };
  event.preventDefault();
  rows.forEach((row) => { row.tabIndex = -1; });
  rows[to[event.key]].tabIndex = 0;
  rows[to[event.key]].focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "p") togglePause();
  else if (["ArrowDown", "ArrowUp", "Home", "End"].includes(event.key)) moveFocus(event);
});
byId("pause").addEventListener("click", togglePause);

// A stream ends once a minute and the browser asks anew: only a longer silence is worth a word.
let silence = 0;
const events = new EventSource("/ui/events");
events.onmessage = (event) => {
  clearTimeout(silence);
  if (!paused) draw(JSON.parse(event.data));
};
events.onerror = () => {
  clearTimeout(silence);
  silence = setTimeout(() => { byId("state").textContent = "no connection to the server; trying again"; }, 2000);
};
