// The page at `/`: settings, targets and events of one tenant, live.
//
// Everything comes from the public API. Settings are read once, then again whenever the event stream says that something
// happened to them; a full read every minute covers what has no event. The stream is read with fetch instead of
// EventSource, which can't send a bearer token. Whatever the daemon says gets into the page as text, never as HTML.

const PHASES = ["Stalled", "Drifted", "Unknown", "Retiring", "Reconciling", "Pending", "Paused", "Ready"];
const SHOWN = 500, EVENTS = 150, REFRESH_MS = 60_000, RETRY_MS = 2_000, GATHER_MS = 200, FEW = 8;

const $ = (id) => document.getElementById(id);
const state = { settings: new Map(), dirty: new Set(), phase: "", tenant: "default", open: "", following: null };

// --- the daemon ---------------------------------------------------------------------------------------------------------

class Problem extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `HTTP ${status}`);
    this.status = status;
  }
}

async function call(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  const response = await fetch(path, { ...options, headers });
  if (!response.ok) throw new Problem(response.status, await response.json().catch(() => ({})));
  return response;
}

const get = async (path) => (await call(path)).json();
const tenantPath = (rest) => `/v1/tenants/${encodeURIComponent(state.tenant)}/${rest}`;
const settingPath = (reference) => tenantPath(`settings/${reference.split("/").map(encodeURIComponent).join("/")}`);

async function readAll() {
  const found = new Map();
  for (let cursor = ""; cursor !== null; ) {
    const page = await get(tenantPath(`settings?limit=1000${cursor && `&cursor=${encodeURIComponent(cursor)}`}`));
    for (const setting of page.items) found.set(referenceOf(setting), setting);
    cursor = page.next_cursor;
  }
  state.settings = found;
}

async function readOne(reference) {
  try {
    state.settings.set(reference, await get(settingPath(reference)));
  } catch (problem) {
    if (problem.status !== 404) throw problem;
    state.settings.delete(reference);
  }
}

// --- words ----------------------------------------------------------------------------------------------------------------

const referenceOf = (setting) => `${setting.setting_type}/${setting.name}`;
const phaseOf = (setting) => setting.status?.phase ?? "Pending";
const json = (value) => (value == null ? "absent" : typeof value === "string" ? value : JSON.stringify(value));
const cut = (text, most = 60) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const joined = (...parts) => parts.filter(Boolean).join(": ");
const pairs = (map) => Object.entries(map ?? {}).map(([name, value]) => `${name}=${json(value)}`).join(" ");

function difference({ path, desired, observed }) {
  if (Array.isArray(desired) && Array.isArray(observed)) {
    const told = (verb, words) => words.length && `${verb} ${cut(words.map(json).join(" "))}`;
    const extra = observed.filter((x) => !desired.includes(x)), missing = desired.filter((x) => !observed.includes(x));
    if (extra.length || missing.length) return `${path} ${[told("has", extra), told("lacks", missing)].filter(Boolean).join(", ")}`;
  }
  return `${path} ${cut(json(desired))} → ${cut(json(observed))}`;
}

function messageOf(setting) {
  const conditions = Object.fromEntries((setting.status?.conditions ?? []).map((c) => [c.type, c]));
  for (const [type, bad] of [["Stalled", "True"], ["Drifted", "True"], ["Ready", "False"], ["Ready", "Unknown"]]) {
    const found = conditions[type];
    if (found?.status !== bad) continue;
    const drift = type === "Drifted" && (setting.status.drift ?? []).map(difference).join(" · ");
    return joined(found.reason, (drift || found.message || "").replaceAll(`${state.tenant}/`, ""));
  }
  return "";
}

function gist({ event_type: type, details = {}, actor, generation }) {
  const by = actor ? ` by ${actor}` : "";
  if (type === "SettingAccepted") return joined(`${details.outcome ?? "declared"} (generation ${generation})${by}`, details.reason);
  if (type === "DriftDetected") return (details.drift ?? []).map(difference).join(" · ");
  if (type === "DriftResolved") return (details.paths ?? []).join(" ");
  if (type === "ActionStarted") return details.summary ?? details.step;
  if (type === "Converged" || type === "TargetUp" || type === "SettingForgotten") return "";
  return joined(details.step ?? details.operation, joined(details.reason, details.message)) + (type.startsWith("Action") ? "" : by);
}

function timeOf(at) {
  const moment = new Date(at), day = moment.toDateString() === new Date().toDateString() ? "" : `${moment.toLocaleDateString()} `;
  return el("time", { dateTime: at, title: at }, day + moment.toTimeString().slice(0, 8));
}

// --- the page ---------------------------------------------------------------------------------------------------------------

function el(tag, properties, ...children) {
  const node = document.createElement(tag);
  const { dataset, ...rest } = properties ?? {};
  Object.assign(node, rest);
  Object.assign(node.dataset, dataset);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const dot = () => el("span", { className: "dot", ariaHidden: "true" });
const phaseMark = (phase) => el("span", { className: phase }, dot(), phase);

function wanted(setting) {
  const text = $("text").value.trim().toLowerCase(), type = $("type").value;
  if (type && setting.setting_type !== type) return false;
  return !text || `${referenceOf(setting)} ${pairs(setting.labels)} ${messageOf(setting)}`.toLowerCase().includes(text);
}

function show(changed = new Set()) {
  const all = [...state.settings.values()], types = [...new Set(all.map((s) => s.setting_type))].sort();
  if (types.join() !== [...$("type").options].slice(1).map((o) => o.value).join()) {
    const chosen = $("type").value;
    $("type").replaceChildren(el("option", { value: "" }, "all types"), ...types.map((t) => el("option", { value: t }, t)));
    $("type").value = types.includes(chosen) ? chosen : "";
  }
  const found = all.filter(wanted), counts = Object.groupBy ? Object.groupBy(found, phaseOf) : grouped(found);
  const button = (phase, label, count) =>
    el("button", { type: "button", className: phase, ariaPressed: String(state.phase === phase), onclick: () => choose(phase) },
      ...(phase ? [dot()] : []), `${label} ${count}`);
  $("phases").replaceChildren(button("", "All", found.length),
    ...PHASES.filter((p) => counts[p] || p === state.phase).map((p) => button(p, p, counts[p]?.length ?? 0)));
  const rows = found.filter((s) => !state.phase || phaseOf(s) === state.phase)
    .sort((a, b) => PHASES.indexOf(phaseOf(a)) - PHASES.indexOf(phaseOf(b)) || (referenceOf(a) < referenceOf(b) ? -1 : 1));
  $("settings").replaceChildren(...rows.slice(0, SHOWN).map((setting) => row(setting, changed)));
  $("empty").hidden = rows.length > 0 && rows.length <= SHOWN;
  $("empty").textContent = rows.length ? `${rows.length - SHOWN} more: narrow the filter` : all.length ? "Nothing fits the filter." : "Nothing is declared yet: coreplane apply -f FILE";
}

const grouped = (settings) => settings.reduce((by, s) => ((by[phaseOf(s)] ??= []).push(s), by), {});

function row(setting, changed) {
  const reference = referenceOf(setting), observed = setting.status?.observed_generation ?? 0;
  const generation = observed && observed < setting.generation ? `${observed}→${setting.generation}` : setting.generation;
  const open = () => (location.hash = `#${reference}`);
  return el("tr", { tabIndex: 0, className: changed.has(reference) ? "changed" : "", onclick: open, onkeydown: (e) => e.key === "Enter" && open() },
    el("td", {}, el("small", {}, setting.setting_type), setting.name), el("td", {}, phaseMark(phaseOf(setting))),
    el("td", { className: "number" }, String(generation)), el("td", {}, messageOf(setting)));
}

function choose(phase) {
  state.phase = state.phase === phase ? "" : phase;
  show();
}

function showStatus(status) {
  const { ready, replica } = status, behind = replica.lag ? `, ${replica.lag} behind` : "";
  $("health").replaceChildren(ready ? `revision ${replica.position}${behind}` : el("a", { href: "/readyz", className: "failed" }, "not ready"));
  $("targets").replaceChildren(...status.targets.filter((t) => t.tenant === state.tenant).map((target) =>
    el("div", { className: "target", dataset: { up: String(target.up) } }, el("b", {}, `${target.service}/${target.target}`),
      el("small", {}, target.up ? `up · ${target.settings} settings` : joined("down", target.reason, target.message)))));
}

function eventItem(event) {
  const about = event.setting ? event.setting.split("/").slice(1).join("/") : event.service_name;
  const name = event.setting ? el("a", { href: `#${about}` }, about) : about;
  return el("li", {}, timeOf(event.timestamp), el("b", { className: `${event.status} ${event.event_type}` }, event.event_type), el("span", {}, name), el("small", {}, gist(event)));
}

function showEvent(event) {
  $("events").prepend(eventItem(event));
  while ($("events").children.length > EVENTS) $("events").lastChild.remove();
}

// --- one setting ------------------------------------------------------------------------------------------------------------

const table = (heads, rows) => el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((h) => el("th", {}, h)))),
  el("tbody", {}, ...rows.map((cells) => el("tr", {}, ...cells.map((cell) => el("td", {}, cell ?? ""))))));
const code = (value) => el("code", {}, json(value));
const part = (title, content) => [el("h3", {}, title), content];

async function showDetail() {
  const reference = decodeURIComponent(location.hash.slice(1));
  state.open = reference;
  if (!reference.includes("/")) return $("detail").close();
  const close = el("button", { type: "button", onclick: () => $("detail").close() }, "Close");
  const head = (...more) => el("header", {}, el("h2", { id: "detail-name" }, reference), ...more, el("nav", {}, ...(more.length ? [look(reference)] : []), close));
  try {
    const query = encodeURIComponent(`${state.tenant}/${reference}`);
    const [setting, history, events] = await Promise.all(
      [settingPath(reference), `${settingPath(reference)}/history?limit=20`, tenantPath(`events?limit=15&setting=${query}`)].map(get));
    if (state.open !== reference) return; // another one was opened meanwhile
    $("detail").replaceChildren(head(phaseMark(phaseOf(setting))), el("div", {}, ...described(setting, history.items, events.items)));
  } catch (problem) {
    $("detail").replaceChildren(head(), el("div", {}, el("p", {}, problem.message)));
  }
  if (!$("detail").open) $("detail").showModal();
}

function described(setting, history, events) {
  const status = setting.status ?? {}, action = status.last_action;
  const facts = { Generation: setting.generation, Revision: setting.revision, Updated: timeOf(setting.updated_at), Labels: pairs(setting.labels),
    "Depends on": setting.depends_on?.join(" "), Policy: pairs(setting.policy), External: status.external,
    "Last action": action && `${action.step} ${action.status}, try ${action.attempt}`, Message: messageOf(setting) };
  return [
    el("dl", {}, ...Object.entries(facts).filter(([, fact]) => fact).flatMap(([name, fact]) => [el("dt", {}, name), el("dd", {}, fact)])),
    ...(status.drift?.length ? part("Drift", table(["Path", "Desired", "Observed"], status.drift.map((d) => [code(d.path), code(d.desired), code(d.observed)]))) : []),
    ...part("Value", el("pre", {}, JSON.stringify(setting.value, null, 2))),
    ...part("Conditions", table(["Condition", "Status", "Reason", "Since", "Message"], (status.conditions ?? []).map((c) => [c.type, c.status, c.reason, timeOf(c.since), c.message]))),
    ...part("History", table(["Revision", "At", "Actor", "Changed", "Reason"],
      history.map((r) => [String(r.revision), timeOf(r.at), r.actor, cut((r.changed ?? []).join(" "), 120), r.reason]))),
    ...part("Events", el("ol", {}, ...events.map(eventItem))),
  ];
}

function look(reference) {
  const button = el("button", { type: "button", title: "Have it compared with the backend now" }, "Look now");
  button.onclick = async () => {
    const done = await call(`${settingPath(reference)}/reconcile`, { method: "POST" }).then(() => "Looking", (problem) => problem.message);
    button.textContent = done;
  };
  return button;
}

// --- live -------------------------------------------------------------------------------------------------------------------

async function follow(signal) {
  for (let cursor = ""; !signal.aborted; await new Promise((done) => setTimeout(done, RETRY_MS))) {
    try {
      const response = await call(tenantPath("stream"), { signal, headers: cursor && { "Last-Event-ID": cursor } });
      live("on", "live");
      await refresh();
      for await (const frame of frames(response.body)) {
        cursor = frame.id ?? cursor;
        if (frame.data && frame.event !== "dropped" && frame.event !== "failed") happened(JSON.parse(frame.data));
      }
    } catch (problem) {
      if (signal.aborted) return;
      if (problem.status === 401 || problem.status === 403) return signIn(problem.message);
      if (problem.status === 410) cursor = "";
      live("off", problem instanceof Problem ? problem.message : "connection lost, trying again");
    }
  }
}

async function* frames(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ""; ; ) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (text + value).split("\n\n");
    text = parts.pop();
    for (const lines of parts) yield Object.fromEntries(lines.split("\n").filter((l) => !l.startsWith(":")).map((l) => l.split(/: ?(.*)/s, 2)));
  }
}

function happened(event) {
  showEvent(event);
  if (event.setting) state.dirty.add(event.setting.split("/").slice(1).join("/"));
  if (event.event_type.startsWith("Target")) state.stale = true; // everything on that target has another phase now
  state.timer ??= setTimeout(gather, GATHER_MS);
}

async function gather() {
  const changed = state.dirty, all = state.stale || changed.size > FEW;
  Object.assign(state, { timer: null, dirty: new Set(), stale: false });
  try {
    if (all) await refresh(changed);
    else await Promise.all([...changed].map(readOne)).then(() => show(changed));
    if (changed.has(state.open) && $("detail").open) await showDetail();
  } catch (problem) {
    live("off", problem.message);
  }
}

async function refresh(changed) {
  const [status] = await Promise.all([get("/v1/status"), readAll()]);
  showStatus(status);
  show(changed);
}

function live(className, text) {
  Object.assign($("live"), { className, textContent: text });
}

// --- start ------------------------------------------------------------------------------------------------------------------

function signIn(refusal = "") {
  state.following?.abort();
  $("board").hidden = true;
  $("sign-in").hidden = false;
  $("refusal").textContent = sessionStorage.getItem("token") ? refusal : "";
  $("token").focus();
}

async function start() {
  state.following?.abort();
  state.following = new AbortController();
  const { signal } = state.following;
  try {
    const status = await get("/v1/status");
    if (!status.tenants.includes(state.tenant)) state.tenant = status.tenants[0] ?? state.tenant;
    $("tenant").replaceChildren(...status.tenants.map((name) => el("option", { value: name, selected: name === state.tenant }, name)));
    $("tenant").hidden = status.tenants.length < 2;
    $("sign-in").hidden = true;
    $("board").hidden = false;
    $("sign-out").hidden = !sessionStorage.getItem("token");
    const past = await get(tenantPath(`events?limit=${EVENTS}`));
    $("events").replaceChildren(...past.items.map(eventItem));
    follow(signal);
    await showDetail();
  } catch (problem) {
    if (problem.status === 401 || problem.status === 403) return signIn(problem.message);
    $("health").textContent = `the daemon doesn't answer: ${problem.message}`;
    setTimeout(() => signal.aborted || start(), RETRY_MS);
  }
}

function paint(theme) {
  document.documentElement.dataset.theme = theme;
}

paint(localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
$("theme").onclick = () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("theme", theme);
  paint(theme);
};
$("sign-in").onsubmit = (submitted) => {
  submitted.preventDefault();
  sessionStorage.setItem("token", $("token").value.trim());
  $("token").value = "";
  start();
};
$("sign-out").onclick = () => {
  sessionStorage.removeItem("token");
  location.reload();
};
$("tenant").onchange = () => {
  state.tenant = $("tenant").value;
  start();
};
$("text").oninput = $("type").onchange = () => show();
$("detail").onclose = () => {
  state.open = "";
  if (location.hash) history.pushState(null, "", location.pathname);
};
$("detail").onclick = (click) => click.target === $("detail") && $("detail").close();
addEventListener("hashchange", showDetail);
addEventListener("keydown", (key) => {
  if (key.key !== "/" || key.target.matches("input, select") || $("detail").open) return;
  key.preventDefault();
  $("text").focus();
});
setInterval(() => $("board").hidden || document.hidden || refresh().catch((problem) => live("off", problem.message)), REFRESH_MS);
start();
