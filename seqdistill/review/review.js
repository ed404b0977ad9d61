// The review page. Text that models wrote goes into the page as text nodes only, never as markup.
"use strict";

const SCREEN = 50;
const $ = (id) => document.getElementById(id);
const state = { view: 0, count: 0, at: 0, start: 0, rows: [], row: null, editing: false, done: [] };

// --- talking to the server ---

async function ask(page, values) {
  const answer = await fetch(values ? `${page}?${new URLSearchParams(values)}` : page);
  return understood(answer);
}

async function post(page, values) {
  const answer = await fetch(page, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(values),
  });
  return understood(answer);
}

async function understood(answer) {
  const value = await answer.json();
  if (!answer.ok) throw new Error([value.error, value.next].filter(Boolean).join("; "));
  return value;
}

// One thing at a time, in the order of the keys: a fast reader loses no key.
let last = Promise.resolve();
function then(act) {
  last = last.then(act).catch((error) => {
    const gone = error instanceof TypeError;
    say(gone ? "Not saved: the review server does not answer. Start it again." : `Not saved: ${error.message}`, true);
  });
  return last;
}

// An action by key or button; an edit under way is first saved or left.
function act(wanted) {
  return then(() => (state.editing ? say("Save or cancel the edit first.", true) : wanted()));
}

// --- showing ---

const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\ud800-\udfff]|[\u{e0000}-\u{e007f}]/gu;

// The text, with characters that hide or reorder others shown by their number.
function put(element, text) {
  element.replaceChildren();
  let end = 0;
  for (const match of text.matchAll(UNSEEN)) {
    const mark = document.createElement("span");
    mark.className = "escape";
    mark.textContent = "U+" + match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    element.append(text.slice(end, match.index), mark);
    end = match.index + match[0].length;
  }
  element.append(text.slice(end));
}

function say(text, wrong = false) {
  $("said").textContent = text;
  $("said").classList.toggle("wrong", wrong);
}

function showProgress(answer) {
  state.count = answer.count;
  $("bar").value = answer.count ? answer.reviewed / answer.count : 0;
  $("progress").textContent = `${answer.reviewed.toLocaleString("en")} of ${answer.count.toLocaleString("en")} reviewed`;
  $("outdated").hidden = !answer.outdated;
}

const NAMES = { accept: "accepted", edit: "edited", reject: "rejected" };

function showList() {
  const items = state.rows.map((row, place) => {
    const button = document.createElement("button");
    button.type = "button";
    const dot = document.createElement("span");
    dot.className = `dot ${row.decision ?? ""}`;
    const words = document.createElement("span");
    words.className = "words";
    put(words, row.text.replace(/\s+/g, " ") || "(empty)");
    const note = document.createElement("small");
    note.textContent = [row.rule ?? "kept", NAMES[row.decision]].filter(Boolean).join(", ");
    button.append(dot, words, note);
    if (state.start + place === state.at) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => act(() => go(state.start + place)));
    const item = document.createElement("li");
    item.append(button);
    return item;
  });
  $("list").replaceChildren(...items);
  $("list").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
}

function section(part, text, target) {
  $(part).hidden = !text;
  if (text) put($(target), text);
}

function showRow() {
  const row = state.row;
  $("row").hidden = !row;
  $("empty").hidden = Boolean(row);
  $("place").textContent = row ? `${(state.at + 1).toLocaleString("en")} / ${state.count.toLocaleString("en")}` : "";
  for (const id of ["accept", "edit", "reject"]) $(id).disabled = !row || (row.final && id !== "reject");
  $("undo").disabled = !(state.done.length || row?.decision);
  $("previous").disabled = !row || state.at === 0;
  $("next").disabled = !row || state.at >= state.count - 1;
  if (!row) return;
  const kept = row.file !== "rejected";
  $("outcome").textContent = kept ? "Kept" : "Rejected";
  $("outcome").className = `tag ${kept ? "kept" : "rejected"}`;
  const settings = row.would_keep.length ? `; ${row.would_keep.join(" and ")} would keep it` : "";
  const final = row.final ? ". Nobody overrules this rule." : "";
  put($("reason"), kept ? `in ${row.file}` : `${row.rule}: ${row.reason}${settings}${final}`);
  section("better", row.kept_text, "kept_text");
  $("prompt").replaceChildren(
    ...row.prompt.flatMap((message) => {
      const text = document.createElement("div");
      text.className = `text ${message.role}`;
      put(text, message.content);
      if (row.prompt.length === 1) return [text];
      const role = document.createElement("p");
      role.className = "role";
      role.textContent = message.role;
      return [role, text];
    }),
  );
  const decision = row.decision;
  const edited = decision?.decision === "edit";
  put($("completion"), (edited ? decision.completion : row.completion) || "");
  $("completion_name").textContent = "Completion";
  if (decision) {
    const tag = document.createElement("span");
    tag.className = `tag ${decision.decision === "reject" ? "rejected" : "kept"}`;
    tag.textContent = `${NAMES[decision.decision]} by ${decision.reviewer}`;
    $("completion_name").append(tag);
  }
  $("answer").className = decision?.decision ?? "";
  section("original", edited && decision.completion !== row.completion ? row.completion : "", "teacher_text");
  section("reference_part", row.reference, "reference");
  section("reasoning_part", row.reasoning, "reasoning");
  $("facts").replaceChildren(
    ...Object.entries(row.facts)
      .filter(([, value]) => value !== null)
      .map(([name, value]) => {
        const pair = document.createElement("div");
        const term = document.createElement("dt");
        const fact = document.createElement("dd");
        term.textContent = name;
        put(fact, String(value));
        pair.append(term, fact);
        return pair;
      }),
  );
  $("main").scrollTop = 0;
}

// --- moving ---

async function select(values) {
  const answer = await ask("select", values);
  state.view = answer.view;
  state.rows = [];
  say("");
  showProgress(answer);
  await go(answer.first);
}

async function go(at) {
  leaveEditor();
  state.at = Math.max(0, Math.min(at, state.count - 1));
  const start = Math.floor(state.at / SCREEN) * SCREEN;
  if (start !== state.start || !state.rows.length) {
    const answer = await ask("screen", { view: state.view, start, count: SCREEN });
    state.rows = answer.rows;
    state.start = start;
    showProgress(answer);
  }
  const here = state.rows[state.at - state.start];
  state.row = here ? await ask("row", { number: here.number }) : null;
  showList();
  showRow();
}

// --- deciding ---

async function decide(word, completion = null) {
  const { row, at } = state;
  if (!row || (row.final && word !== "reject")) return;
  if (word === "accept" && row.decision?.decision === "edit") {
    say("The edit is kept.");
    return go(at + 1);
  }
  await write(row.number, word, completion);
  state.done.push({ number: row.number, at, view: state.view, before: row.decision });
  say(`Row ${at + 1} ${NAMES[word]}.`);
  await go(at + 1);
}

async function write(number, decision, completion) {
  const answer = await post("decide", { number, decision, completion, view: state.view });
  showProgress(answer);
  const place = state.rows.findIndex((row) => row.number === number);
  if (place >= 0) state.rows[place] = answer.row;
}

async function undo() {
  const step = state.done.at(-1);
  if (step) {
    await write(step.number, step.before?.decision ?? "undo", step.before?.completion ?? null);
    state.done.pop();
    say("Undone.");
    return go(step.view === state.view ? step.at : state.at);
  }
  if (!state.row?.decision) return;
  await write(state.row.number, "undo", null);
  say("The decision is taken back.");
  return go(state.at);
}

function startEditor() {
  const row = state.row;
  if (!row || row.final || state.editing) return;
  state.editing = true;
  $("editor").value = row.decision?.completion ?? row.completion;
  $("completion").hidden = true;
  $("editor").hidden = $("editing").hidden = false;
  $("editor").focus();
  $("editor").setSelectionRange(0, 0);
}

function leaveEditor() {
  state.editing = false;
  $("completion").hidden = false;
  $("editor").hidden = $("editing").hidden = true;
}

async function saveEdit() {
  const text = $("editor").value;
  if (!text.trim()) return say("The text is empty; reject the row instead.", true);
  if (text === state.row.completion.replace(/\r\n?/g, "\n")) return say("Nothing was changed; press A to accept.", true);
  return decide("edit", text);
}

// --- keys and buttons ---

const acts = {
  accept: () => decide("accept"),
  reject: () => decide("reject"),
  edit: startEditor,
  undo,
  next: () => go(state.at + 1),
  previous: () => go(state.at - 1),
};
const keys = {
  a: acts.accept, r: acts.reject, e: acts.edit, u: acts.undo, j: acts.next, k: acts.previous,
  ArrowDown: acts.next, ArrowRight: acts.next, ArrowUp: acts.previous, ArrowLeft: acts.previous,
};

document.addEventListener("keydown", (event) => {
  const writing = event.target === $("editor");
  if (writing && event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    then(saveEdit);
  } else if (event.key === "Escape" && (writing || event.target === $("text"))) {
    event.target.blur();
    if (writing) then(leaveEditor);
  } else if (event.ctrlKey || event.metaKey || event.altKey || state.editing || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
    return;
  } else if (event.key === "/") {
    event.preventDefault();
    $("text").focus();
    $("text").select();
  } else if (Object.hasOwn(keys, event.key)) {
    event.preventDefault();
    act(keys[event.key]);
  }
});

for (const [id, wanted] of Object.entries(acts)) {
  $(id).addEventListener("click", (event) => {
    event.currentTarget.blur();
    act(wanted);
  });
}
$("save").addEventListener("click", () => then(saveEdit));
$("leave").addEventListener("click", () => then(leaveEditor));
window.addEventListener("beforeunload", (event) => {
  if (state.editing) event.preventDefault();
});

function choose() {
  act(() => select({ show: $("show").value, rule: $("rule").value, text: $("text").value }));
}
for (const id of ["show", "rule"]) {
  $(id).addEventListener("change", (event) => {
    event.target.blur();
    choose();
  });
}
$("choice").addEventListener("submit", (event) => {
  event.preventDefault();
  $("text").blur();
  choose();
});
$("text").addEventListener("search", () => {
  if (!$("text").value) choose();
});

$("finish").addEventListener("click", () => {
  act(async () => {
    await post("finish", {});
    const end = document.createElement("p");
    end.className = "nothing";
    end.textContent = "Every decision is saved. Run seqdistill filter to apply them. This page can be closed.";
    document.body.replaceChildren(end);
  });
});

then(async () => {
  const about = await ask("about");
  $("run").textContent = about.run;
  document.title = `Review of ${about.run}`;
  for (const [rule, count] of about.rules) $("rule").append(new Option(`${rule} (${count.toLocaleString("en")})`, rule));
  await select({ show: "all", rule: "", text: "" });
});
